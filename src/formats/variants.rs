//! Tests of integers and tables in random sizes. A second implementation of each format stores
//! them, and the first reads them.

use std::collections::HashSet;

use half::{bf16, f16};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::Dtype;
use serde_json::{Value, json};

use super::bitsandbytes::STATE_BYTES;
use super::{Announced, Coding, Decoded, Headers, Look, Settings, expected, find, window};

/// A weight as it is in a file.
#[derive(Default)]
struct Stored {
    headers: Vec<Announced>,
    data: Vec<Vec<u8>>,
    settings: Value,
    expected: Vec<f32>,
    sizes: Vec<usize>,
    /// Whether experts may be stacked so.
    stacks: bool,
}

const NAME: &str = "model.layers.0.mlp.down_proj.weight";
const MODULE: &str = "model.layers.0.mlp.down_proj";

fn look<'a>(
    shape: &'a [usize],
    headers: &'a dyn Headers,
    settings: &'a Settings,
    model: &'a HashSet<String>,
) -> Look<'a> {
    Look { name: NAME, shape, headers, settings, model, scaled: true, place: "model" }
}

impl Stored {
    fn add(&mut self, name: &str, dtype: Dtype, shape: &[usize], data: Vec<u8>) {
        assert_eq!(shape.iter().product::<usize>() * dtype.bitsize() / 8, data.len(), "{name} {shape:?}");
        self.headers.push((format!("{MODULE}.{name}"), dtype, shape.to_vec()));
        self.data.push(data);
    }

    fn bytes(&self, name: &str) -> &[u8] {
        let at = self.headers.iter().position(|(called, ..)| called == name);
        &self.data[at.unwrap_or_else(|| panic!("{name} is not stored"))]
    }

    fn coding(&self) -> std::sync::Arc<dyn Coding> {
        let settings = Settings::parse(self.settings.as_object().unwrap(), "config.json".into(), None).unwrap();
        let headers: &dyn Headers = &self.headers;
        let model = HashSet::from([NAME.to_string()]);
        find(&look(&self.sizes, headers, &settings, &model)).unwrap().expect("a format")
    }

    /// The bytes of all pieces that belong to some rows of a matrix, of a stack or alone.
    fn pieces(&self, coding: &dyn Coding, matrix: (usize, usize), rows: &std::ops::Range<usize>) -> Vec<Vec<u8>> {
        let out = self.sizes[self.sizes.len() - 2];
        let own = |piece: &super::Piece| {
            let bytes = self.bytes(&piece.name);
            let range = piece.along.own_bytes(bytes.len() as u64, matrix, rows, out);
            bytes[range.start as usize..range.end as usize].to_vec()
        };
        coding.pieces().iter().map(own).collect()
    }

    /// It as the last of a stack, the others of which are nothing but zeros.
    fn stacked(&self, experts: usize) -> Self {
        let headers = self.headers.iter().map(|(name, dtype, shape)| {
            (name.clone(), *dtype, std::iter::once(experts).chain(shape.iter().copied()).collect())
        });
        let behind = |data: &Vec<u8>| [vec![0; data.len() * (experts - 1)], data.clone()].concat();
        Self {
            headers: headers.collect(),
            data: self.data.iter().map(behind).collect(),
            settings: self.settings.clone(),
            expected: self.expected.clone(),
            sizes: std::iter::once(experts).chain(self.sizes.iter().copied()).collect(),
            stacks: false,
        }
    }

    /// Checks all values, and the values of some rows alone.
    fn check(&self, rng: &mut ChaCha8Rng, what: &str) {
        let coding = self.coding();
        let bits = |values: &[f32]| values.iter().map(|value| (value + 0.0).to_bits()).collect::<Vec<_>>();
        let [out, input] = self.sizes[..] else { panic!("{what} is no matrix") };
        let values = floats(coding.decode(self.pieces(&*coding, (0, 1), &(0..out)), out).unwrap());
        assert_eq!(bits(&values), bits(&self.expected), "{what}: {:?} {}", self.sizes, self.settings);
        let first = rng.random_range(0..out);
        let rows = window(coding.pieces(), &(first..rng.random_range(first..out) + 1), out);
        let pieces = self.pieces(&*coding, (0, 1), &rows);
        let some = floats(coding.decode(pieces.clone(), rows.len()).unwrap());
        let expected = &self.expected[rows.start * input..rows.end * input];
        assert_eq!(bits(&some), bits(expected), "{what}: rows {rows:?} of {out}");
        if self.stacks {
            let stack = self.stacked(3);
            let coding = stack.coding();
            let some = floats(coding.decode(stack.pieces(&*coding, (2, 3), &rows), rows.len()).unwrap());
            assert_eq!(bits(&some), bits(expected), "{what}: rows {rows:?} of {out} in a stack");
        }
        // As products read them: some of the rows, from any column on.
        let (row, from) = (rng.random_range(0..rows.len()), rng.random_range(0..input));
        let own = rng.random_range(0..=row)..rng.random_range(row..rows.len()) + 1;
        let all = coding.keep(pieces.clone(), rows.len(), 0..rows.len()).unwrap();
        let kept = coding.keep(pieces, rows.len(), own.clone()).unwrap();
        if coding.keeps_own_rows() {
            // Names of groups belong to all rows.
            let bytes = |kept: &super::Kept| kept.parts[..3].iter().map(Vec::len).sum::<usize>();
            assert_eq!(bytes(&kept) * rows.len(), bytes(&all) * own.len(), "{what}: rows {own:?} of {}", rows.len());
        }
        let mut part = vec![0.0; rng.random_range(0..=input - from)];
        coding.numbers(&kept.parts, kept.above + row - own.start, from, &mut part);
        let at = (rows.start + row) * input + from;
        assert_eq!(bits(&part), bits(&self.expected[at..at + part.len()]), "{what}: row {row} from {from}");
    }
}

fn floats(decoded: Decoded) -> Vec<f32> {
    match decoded {
        Decoded::F32(values) => values,
        Decoded::Bf16(values) => values.into_iter().map(bf16::to_f32).collect(),
    }
}

/// Packs a stream of codes into words, bit by bit.
fn packed(codes: &[i64], bits: usize) -> Vec<u32> {
    let mut words = vec![0; (codes.len() * bits).div_ceil(32)];
    for (i, code) in codes.iter().enumerate() {
        for bit in 0..bits {
            words[(i * bits + bit) / 32] |= ((code >> bit & 1) as u32) << ((i * bits + bit) % 32);
        }
    }
    words
}

/// The bytes of a matrix given by its columns.
fn transposed(columns: Vec<Vec<u32>>) -> Vec<u8> {
    let rows = columns.first().map_or(0, Vec::len);
    (0..rows)
        .flat_map(|row| columns.iter().flat_map(move |column| column[row].to_le_bytes()).collect::<Vec<_>>())
        .collect()
}

fn bytes(words: impl IntoIterator<Item = u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// Scales in one of three types, and their values.
fn scales(rng: &mut ChaCha8Rng, count: usize) -> (Dtype, Vec<u8>, Vec<f32>) {
    let values: Vec<f32> = (0..count).map(|_| rng.random_range(1e-4..1e-1)).collect();
    match rng.random_range(0..3) {
        0 => (Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect(), values),
        1 => {
            let halves: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
            (
                Dtype::F16,
                halves.iter().flat_map(|v| v.to_le_bytes()).collect(),
                halves.iter().map(|v| v.to_f32()).collect(),
            )
        }
        _ => {
            let halves: Vec<bf16> = values.iter().map(|v| bf16::from_f32(*v)).collect();
            (
                Dtype::BF16,
                halves.iter().flat_map(|v| v.to_le_bytes()).collect(),
                halves.iter().map(|v| v.to_f32()).collect(),
            )
        }
    }
}

fn codes(rng: &mut ChaCha8Rng, count: usize, bits: usize) -> Vec<i64> {
    (0..count).map(|_| rng.random_range(0..1 << bits)).collect()
}

/// Sizes that mostly divide nothing, and the number of columns that share a group.
struct Sizes {
    out: usize,
    input: usize,
    group: usize,
    groups: usize,
    /// The group of each column.
    of: Vec<usize>,
    /// True if groups are named in any order.
    named: bool,
}

fn sizes(rng: &mut ChaCha8Rng) -> Sizes {
    let (out, input) = (rng.random_range(1..40usize), rng.random_range(1..90usize));
    let group = [1, 3, 16, 32, input][rng.random_range(0..5)].min(input);
    let groups = input.div_ceil(group);
    let named = rng.random_bool(0.4);
    let mut of: Vec<usize> = (0..input).map(|column| column / group).collect();
    if named {
        of.iter_mut().for_each(|of| *of = rng.random_range(0..groups));
    }
    Sizes { out, input, group, groups, of, named }
}

fn product(code: i64, zero: i64, scale: f32) -> f32 {
    ((code - zero) as f64 * f64::from(scale)) as f32
}

fn compressed_tensors(rng: &mut ChaCha8Rng) -> Stored {
    let Sizes { out, input, group, groups, of, named } = sizes(rng);
    let (bits, plain) = ([4, 8, 2][rng.random_range(0..3)], rng.random_bool(0.2));
    let bits = if plain { 8 } else { bits };
    let (symmetric, half) = (rng.random_bool(0.5), 1i64 << (bits - 1));
    let (q, zeros) = (codes(rng, out * input, bits), codes(rng, out * groups, bits));
    let (dtype, scale_bytes, scales) = scales(rng, out * groups);
    let zero = |row: usize, group: usize| if symmetric { half } else { zeros[row * groups + group] };
    let of = &of;
    let value = |i: usize| {
        let (row, group) = (i / input, of[i % input]);
        product(q[i], zero(row, group), scales[row * groups + group])
    };
    let strategy = if group == input { json!("channel") } else { json!("group") };
    let weights = json!({
        "num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": strategy,
        "group_size": if group == input { Value::Null } else { json!(group) },
    });
    let mut stored = Stored {
        settings: json!({
            "quant_method": "compressed-tensors", "format": if plain { "int-quantized" } else { "pack-quantized" },
            "config_groups": { "group_0": { "targets": ["Linear"], "weights": weights } },
        }),
        expected: (0..out * input).map(value).collect(),
        sizes: vec![out, input],
        stacks: true,
        ..Stored::default()
    };
    stored.add("weight_scale", dtype, &[out, groups], scale_bytes);
    let signed = |codes: &[i64]| codes.iter().map(|code| (code - half) as u8).collect::<Vec<_>>();
    if plain {
        stored.add("weight", Dtype::I8, &[out, input], signed(&q));
    } else {
        let words = q.chunks(input).flat_map(|row| packed(row, bits));
        stored.add("weight_packed", Dtype::I32, &[out, (input * bits).div_ceil(32)], bytes(words));
        let shape = [out, input];
        match rng.random_bool(0.5) {
            true => stored.add(
                "weight_shape",
                Dtype::I64,
                &[2],
                shape.iter().flat_map(|n| (*n as i64).to_le_bytes()).collect(),
            ),
            false => stored.add("weight_shape", Dtype::I32, &[2], bytes(shape.map(|n| n as u32))),
        }
    }
    if !symmetric && (plain || rng.random_bool(0.2)) {
        stored.add("weight_zero_point", Dtype::I8, &[out, groups], signed(&zeros));
    } else if !symmetric {
        let column = |group| packed(&(0..out).map(|row| zeros[row * groups + group]).collect::<Vec<_>>(), bits);
        let rows = (out * bits).div_ceil(32);
        stored.add("weight_zero_point", Dtype::I32, &[rows, groups], transposed((0..groups).map(column).collect()));
    }
    if named {
        stored.add("weight_g_idx", Dtype::I32, &[input], bytes(of.iter().map(|group| *group as u32)));
    }
    stored
}

fn gptq(rng: &mut ChaCha8Rng) -> Stored {
    let Sizes { out, input, group, groups, of, named } = sizes(rng);
    let (bits, second) = ([2, 4, 8][rng.random_range(0..3)], rng.random_bool(0.5));
    let q = codes(rng, out * input, bits);
    // The first version stores a zero minus one, and so cannot store the largest code.
    let most = if second { 1 << bits } else { (1 << bits) - 1 };
    let stored_zeros: Vec<i64> = (0..out * groups).map(|_| rng.random_range(0..most)).collect();
    let (dtype, scale_bytes, scales) = scales(rng, out * groups);
    let of = &of;
    let value = |i: usize| {
        let at = of[i % input] * out + i / input;
        product(q[i], stored_zeros[at] + i64::from(!second), scales[at])
    };
    let mut settings = json!({
        "quant_method": "gptq", "bits": bits, "desc_act": named, "sym": false,
        "group_size": if group == input { -1 } else { group as i64 },
    });
    if second || rng.random_bool(0.5) {
        settings["checkpoint_format"] = json!(if second { "gptq_v2" } else { "gptq" });
    }
    if !second && rng.random_bool(0.2) {
        settings["quant_method"] = json!("auto-round");
        settings["packing_format"] = json!("auto_round:auto_gptq");
    }
    let expected = (0..out * input).map(value).collect();
    let mut stored = Stored { settings, expected, sizes: vec![out, input], stacks: true, ..Stored::default() };
    let columns = q.chunks(input).map(|row| packed(row, bits)).collect();
    stored.add("qweight", Dtype::I32, &[(input * bits).div_ceil(32), out], transposed(columns));
    let zeros = stored_zeros.chunks(out).flat_map(|row| packed(row, bits));
    stored.add("qzeros", Dtype::I32, &[groups, (out * bits).div_ceil(32)], bytes(zeros));
    stored.add("scales", dtype, &[groups, out], scale_bytes);
    if named || rng.random_bool(0.7) {
        stored.add("g_idx", Dtype::I32, &[input], bytes(of.iter().map(|group| *group as u32)));
    }
    if rng.random_bool(0.3) {
        stored.add("bias", Dtype::F16, &[out], vec![0; 2 * out]);
    }
    stored
}

fn awq(rng: &mut ChaCha8Rng) -> Stored {
    let Sizes { out, input, group, groups, .. } = sizes(rng);
    let out = out.next_multiple_of(8);
    let (q, zeros) = (codes(rng, out * input, 4), codes(rng, out * groups, 4));
    let (dtype, scale_bytes, scales) = scales(rng, out * groups);
    let value = |i: usize| {
        let at = i % input / group * out + i / input;
        product(q[i], zeros[at], scales[at])
    };
    // The nibble of each of the eight outputs of a word.
    let nibble = [0, 4, 1, 5, 2, 6, 3, 7];
    let word =
        |eight: &[i64]| eight.iter().zip(nibble).fold(0, |word, (code, nibble)| word | (*code as u32) << (4 * nibble));
    let words = |rows: Vec<i64>| bytes(rows.chunks(8).map(word));
    let version = ["gemm", "GEMM"][rng.random_range(0..2)];
    let settings = json!({
        "quant_method": "awq", "bits": 4, "version": version, "zero_point": true,
        "group_size": if group == input { -1 } else { group as i64 },
    });
    let expected = (0..out * input).map(value).collect();
    let mut stored = Stored { settings, expected, sizes: vec![out, input], stacks: true, ..Stored::default() };
    let by_inputs = (0..input).flat_map(|column| (0..out).map(|row| q[row * input + column]).collect::<Vec<_>>());
    stored.add("qweight", Dtype::I32, &[input, out / 8], words(by_inputs.collect()));
    stored.add("qzeros", Dtype::I32, &[groups, out / 8], words(zeros.clone()));
    stored.add("scales", dtype, &[groups, out], scale_bytes);
    stored
}

fn bitsandbytes(rng: &mut ChaCha8Rng) -> Stored {
    let Sizes { out, input, .. } = sizes(rng);
    let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    let numbers =
        |rng: &mut ChaCha8Rng, count: usize| (0..count).map(|_| rng.random_range(-1f32..1.0)).collect::<Vec<_>>();
    if rng.random_bool(0.3) {
        let (q, scb) = (codes(rng, out * input, 8), numbers(rng, out));
        let value = |i: usize| (q[i] - 128) as f32 * scb[i / input] * 7.874_016e-3;
        let expected = (0..out * input).map(value).collect();
        let settings = json!({ "quant_method": "bitsandbytes", "load_in_8bit": true });
        let mut stored = Stored { settings, expected, sizes: vec![out, input], stacks: true, ..Stored::default() };
        stored.add("weight", Dtype::I8, &[out, input], q.iter().map(|q| (q - 128) as u8).collect());
        stored.add("SCB", Dtype::F32, &[out], floats(&scb));
        if rng.random_bool(0.7) {
            stored.add("weight_format", Dtype::U8, &[], vec![0]);
        }
        return stored;
    }
    let (block, nested_block) = ([32, 64, 128][rng.random_range(0..3)], [4, 256][rng.random_range(0..2)]);
    let (count, blocks) = (out * input, (out * input).div_ceil(block));
    let (q, table) = (codes(rng, count, 4), numbers(rng, 16));
    let mut state = json!({ "quant_type": "nf4", "blocksize": block, "dtype": "bfloat16", "shape": [out, input] });
    let mut stored = Stored { sizes: vec![out, input], ..Stored::default() };
    let scales: Vec<f32> = if rng.random_bool(0.6) {
        let (codes, values) = (codes(rng, blocks, 8), numbers(rng, 256));
        let (nested, mean) = (numbers(rng, blocks.div_ceil(nested_block)), 0.25f32);
        state["nested_blocksize"] = json!(nested_block);
        state["nested_offset"] = json!(mean);
        stored.add("weight.absmax", Dtype::U8, &[blocks], codes.iter().map(|code| *code as u8).collect());
        stored.add("weight.nested_absmax", Dtype::F32, &[nested.len()], floats(&nested));
        stored.add("weight.nested_quant_map", Dtype::F32, &[256], floats(&values));
        codes.iter().enumerate().map(|(i, code)| values[*code as usize] * nested[i / nested_block] + mean).collect()
    } else {
        let scales = numbers(rng, blocks);
        stored.add("weight.absmax", Dtype::F32, &[blocks], floats(&scales));
        scales
    };
    let two = |pair: &[i64]| (pair[0] << 4 | pair.get(1).unwrap_or(&0)) as u8;
    let packed: Vec<u8> = q.chunks(2).map(two).collect();
    stored.add("weight", Dtype::U8, &[packed.len(), 1], packed);
    stored.add("weight.quant_map", Dtype::F32, &[16], floats(&table));
    let (kind, state) = (["nf4", "fp4"][rng.random_range(0..2)], state.to_string().into_bytes());
    stored.add(&format!("weight.quant_state.bitsandbytes__{kind}"), Dtype::U8, &[state.len()], state);
    stored.settings = json!({ "quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": kind });
    stored.expected = (0..count).map(|i| table[q[i] as usize] * scales[i / block]).collect();
    stored
}

/// Stores random weights in a format.
type Maker = fn(&mut ChaCha8Rng) -> Stored;

#[test]
fn random_weights_are_read_as_they_were_stored() {
    let makers: [(&str, Maker); 4] =
        [("compressed-tensors", compressed_tensors), ("GPTQ", gptq), ("AWQ", awq), ("bitsandbytes", bitsandbytes)];
    for seed in 0..100 {
        for (what, make) in makers {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            make(&mut rng).check(&mut rng, &format!("{what}, seed {seed}"));
        }
    }
}

/// The size in bytes of a weight [256, 128] whose files have not been seen follows from the
/// settings.
#[test]
fn sizes_that_settings_announce() {
    let group = |num_bits: usize, size: Value, symmetric: bool, format: &str| {
        let weights = json!({ "num_bits": num_bits, "type": "int", "group_size": size, "symmetric": symmetric });
        let groups = json!({ "group_0": { "targets": ["Linear"], "weights": weights } });
        json!({ "quant_method": "compressed-tensors", "format": format, "config_groups": groups })
    };
    let values = 256 * 128;
    for (settings, bytes) in [
        // The sum of the codes, the scales in bf16, the shape in 64 bits, and zero points of four
        // bits.
        (group(4, json!(32), true, "pack-quantized"), values / 2 + 256 * 4 * 2 + 16),
        (group(4, json!(32), false, "pack-quantized"), values / 2 + 256 * 4 * 2 + 16 + 128 * 4),
        (group(8, Value::Null, true, "pack-quantized"), values + 256 * 2 + 16),
        (group(8, Value::Null, true, "int-quantized"), values + 256 * 2),
        (group(8, Value::Null, false, "int-quantized"), values + 256 * 2 + 256),
        // The sum of the codes, zeros of four bits, scales in f16, and the group of each input.
        (
            json!({ "quant_method": "gptq", "bits": 4, "group_size": 64 }),
            values / 2 + 2 * 256 / 2 + 2 * 256 * 2 + 128 * 4,
        ),
        (json!({ "quant_method": "gptq", "bits": 8, "group_size": -1 }), values + 256 + 256 * 2 + 128 * 4),
        (json!({ "quant_method": "awq", "bits": 4, "group_size": 128 }), values / 2 + 256 / 2 + 256 * 2),
        // The sum of the codes, a table, a scale for each 64 weights, and the sizes as JSON.
        (json!({ "quant_method": "bitsandbytes", "load_in_4bit": true }), values / 2 + 64 + 512 * 4 + STATE_BYTES),
        (
            json!({ "quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_use_double_quant": true }),
            values / 2 + 64 + 512 + STATE_BYTES + 1024 + 2 * 4,
        ),
        (json!({ "quant_method": "bitsandbytes", "load_in_8bit": true }), values + 256 * 4 + 1),
    ] {
        let parsed = Settings::parse(settings.as_object().unwrap(), "config.json".into(), None).unwrap();
        let (headers, model) = (Vec::new(), HashSet::from([NAME.to_string()]));
        let look = look(&[256, 128], &headers, &parsed, &model);
        let coding = expected(&look).unwrap_or_else(|| panic!("nothing is expected of {settings}"));
        let size = |piece: &super::Piece| piece.shape.iter().product::<usize>() * piece.dtype.bitsize() / 8;
        assert_eq!(coding.pieces().iter().map(size).sum::<usize>(), bytes, "{settings}");
    }
    for plain in [
        json!({ "quant_method": "gptq", "bits": 4, "dynamic": { "-:.*down_proj": {} } }),
        json!({ "quant_method": "auto-round", "bits": 4, "extra_config": { MODULE: { "bits": 16 } } }),
        json!({ "quant_method": "awq", "bits": 4, "modules_to_not_convert": ["down_proj"] }),
        json!({ "quant_method": "bitsandbytes", "load_in_8bit": true, "llm_int8_skip_modules": [MODULE] }),
    ] {
        let settings = Settings::parse(plain.as_object().unwrap(), "config.json".into(), None).unwrap();
        let (headers, model) = (Vec::new(), HashSet::from([NAME.to_string()]));
        assert!(expected(&look(&[256, 128], &headers, &settings, &model)).is_none(), "{plain}");
    }
}
