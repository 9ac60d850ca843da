//! The table of all kernels. Kernels are launched only through it, and tests compare it with
//! `kernels/*.cu`.
//!
//! A row has the file in `kernels/`, the kernel's name there, its parameters in the order of the
//! source with the number of elements of each array that it accesses, and its launch grid. Sizes
//! that the grid or the checks need in addition stand in parentheses.

use half::{bf16, f16};

#[cfg(test)]
use super::declare::Signature;
use super::declare::kernels;
use super::kernels::{Grid, THREADS};
use super::launch::{Address, Bits16, Bits32, In, Indices, Launch, Out, Parameter};
use crate::error::{Result, fault};

/// The types of scales in a file, as the kernels number them.
#[derive(Clone, Copy)]
pub enum Scales {
    F32,
    Bf16,
    F16,
    /// Powers of two.
    E8m0,
}

impl Scales {
    /// Bytes of each.
    fn bytes(kind: usize) -> usize {
        [4, 2, 2, 1][kind.min(3)]
    }
}

kernels! {
    /// Fills the lists of addresses for a batch of matrix products, one address per head in each
    /// list.
    attention::addresses = Addresses {
        lists: Out<Address>[5 * heads],
        q: Out<f32>[heads * head_dim],
        k: Out<f32>[heads.div_ceil(group) * head_dim],
        v: Out<f32>[heads.div_ceil(group) * value_dim],
        scores: Out<f32>[heads * per_head],
        out: Out<f32>[heads * value_dim],
        heads: u32,
        group: u32,
        head_dim: u32,
        value_dim: u32,
        per_head: u64,
    } over Grid::each(heads), if (group > 0);

    /// Scales scores, caps them if `cap` is not 0, and adds linear biases if there are `slopes`.
    /// `count` is heads times queries times keys.
    attention::shape_scores = ShapeScores {
        scores: Out<f32>[count],
        slopes: Option<In<f32>>[count.div_ceil(queries * keys)],
        count: u64,
        queries: u32,
        keys: u32,
        first_key: u32,
        scale: f32,
        cap: f32,
        rounded: u32,
        factor: f32,
    } over Grid::each(count), if (queries > 0 && keys > 0);

    /// The softmax of the scores of each query over the keys that it attends to. `rows` is heads
    /// times queries. If `window` and `chunk` are 0, a query attends to all keys up to its own
    /// position.
    attention::softmax = Softmax(rows) {
        scores: Out<f32>[rows * keys],
        sinks: Option<In<f32>>[rows.div_ceil(queries)],
        queries: u32,
        keys: u32,
        first_query: u32,
        first_key: u32,
        window: u32,
        chunk: u32,
        scale: f32,
    } over Grid::rows(rows)?, if (queries > 0 && first_key <= first_query && first_query + queries <= first_key + keys);

    /// FP8 codes in rows of `input`, with one of `scales` for each `high` rows and `wide` columns.
    codes::fp8 = Fp8 {
        out: Out<f32>[count],
        codes: In<u8>[count],
        scales: In<u8>[count.div_ceil(input).div_ceil(high) * input.div_ceil(wide) * Scales::bytes(kind)],
        count: u64,
        input: u32,
        high: u32,
        wide: u32,
        kind: u32,
    } over Grid::each(count), if (input > 0 && high > 0 && wide > 0);

    /// The two NVFP4 codes of each byte of `codes`, with a scale for every 8 bytes, which `number`
    /// multiplies, or divides if `divides` is not 0.
    codes::nvfp4 = Nvfp4 {
        out: Out<f32>[2 * bytes],
        codes: In<u8>[bytes],
        scales: In<u8>[bytes.div_ceil(8)],
        bytes: u64,
        number: f32,
        divides: u32,
    } over Grid::each(bytes);

    /// Integers in rows of `input` with a zero and a scale for each row and group, times `factor`.
    codes::integers = Integers {
        out: Out<f32>[count],
        codes: In<u8>[count.div_ceil(input) * row_bytes],
        scales: In<u8>[count.div_ceil(input) * groups * Scales::bytes(kind)],
        zeros: Option<In<u8>>[count.div_ceil(input) * groups],
        named: Option<In<Bits32>>[input],
        count: u64,
        input: u32,
        bits: u32,
        row_bytes: u32,
        groups: u32,
        columns: u32,
        kind: u32,
        factor: f32,
    } over Grid::each(count),
        if (input > 0 && bits > 0 && bits <= 8 && input * bits <= 8 * row_bytes && groups > 0 && columns > 0);

    /// Four-bit codes of a table of 16 numbers, with one of `scales` for each `block` of them.
    codes::four_bits = FourBits {
        out: Out<f32>[count],
        codes: In<u8>[count.div_ceil(2)],
        table: In<f32>[16],
        scales: In<f32>[count.div_ceil(block)],
        count: u64,
        block: u64,
    } over Grid::each(count), if (block > 0);

    /// Dequantises the two four-bit floats of each byte of `codes`, with a scale for every 16
    /// bytes, to bf16.
    codes::mxfp4 = Mxfp4 {
        out: Out<bf16>[2 * bytes],
        codes: In<u8>[bytes],
        scales: In<u8>[bytes.div_ceil(16)],
        bytes: u64,
    } over Grid::each(bytes);

    /// The short convolution before a gated DeltaNet. `blocks` is sequences times heads times
    /// positions. `sources` has two columns: the first column of a head in `x`, and its first
    /// channel in `taps`. The outputs are scaled to norm `length`, unless it is 0.
    delta::short_conv = ShortConv(blocks) {
        out: Out<f32>[blocks * width],
        x: In<f32>[(blocks.div_ceil(heads) - 1) * columns + sources.bound(0) - 1 + width],
        taps: In<f32>[(sources.bound(1) - 1 + width) * kernel],
        sources: Indices[2 * heads],
        heads: u32,
        positions: u32,
        columns: u32,
        width: u32,
        kernel: u32,
        length: f32,
    } over Grid::rows(blocks)?,
        if (heads > 0 && blocks % (heads * positions) == 0 && sources.bound(0) > 0 && sources.bound(1) > 0);

    /// The gated delta rule. `blocks` is sequences times heads. Its state stays in registers if
    /// `dk` is 64 or 128.
    delta::delta_rule | delta_rule_64 | delta_rule_128 = DeltaRule(blocks) {
        out: Out<f32>[blocks * positions * dv],
        q: In<f32>[blocks * positions * dk],
        k: In<f32>[blocks * positions * dk],
        v: In<f32>[blocks * positions * dv],
        gates: In<f32>[blocks * positions * 2],
        a_log: In<f32>[heads],
        dt_bias: In<f32>[heads],
        heads: u32,
        group: u32,
        positions: u32,
        dk: u32,
        dv: u32,
    } over Grid { threads: (dv as u32).next_multiple_of(32), ..Grid::rows(blocks)? },
        the match dk { 64 => 1, 128 => 2, _ => 0 },
        if (dk <= 256 && dv <= 1024 && group > 0 && heads % group == 0 && blocks % heads == 0);

    /// to += x
    elementwise::add = Add {
        to: Out<f32>[count],
        x: In<f32>[count],
        count: u64,
    } over Grid::each(count);

    /// x *= y
    elementwise::multiply = Multiply {
        x: Out<f32>[count],
        y: In<f32>[count],
        count: u64,
    } over Grid::each(count);

    /// x *= factor
    elementwise::scale = Scale {
        x: Out<f32>[count],
        count: u64,
        factor: f32,
    } over Grid::each(count);

    /// x *= factors, of which there is one for each of `repeat` rows of `size` elements.
    elementwise::scale_rows = ScaleRows {
        x: Out<f32>[count],
        factors: In<f32>[repeat],
        count: u64,
        size: u32,
        repeat: u32,
    } over Grid::each(count), if (size > 0 && repeat > 0);

    /// y += bias, in rows of `columns`.
    elementwise::add_bias = AddBias {
        y: Out<f32>[count],
        bias: In<f32>[columns],
        count: u64,
        columns: u32,
    } over Grid::each(count), if (columns > 0);

    /// x = f(x)
    elementwise::activate = Activate {
        x: Out<f32>[count],
        count: u64,
        kind: u32,
    } over Grid::each(count);

    /// x *= f(gates)
    elementwise::gate = Gate {
        x: Out<f32>[count],
        gates: In<f32>[count],
        count: u64,
        kind: u32,
    } over Grid::each(count);

    /// x = xIELU(x), or x *= xIELU(gates).
    elementwise::xielu = XIelu {
        x: Out<f32>[count],
        gates: Option<In<f32>>[count],
        count: u64,
        alpha_p: f32,
        alpha_n: f32,
        beta: f32,
        eps: f32,
    } over Grid::each(count);

    /// x *= sigmoid(gates), with one gate for every `per_gate` consecutive elements.
    elementwise::sigmoid_gate = SigmoidGate {
        x: Out<f32>[count],
        gates: In<f32>[count.div_ceil(per_gate)],
        count: u64,
        per_gate: u64,
    } over Grid::each(count), if (per_gate > 0);

    /// Turns each pair of gate and up in `x` into one element.
    elementwise::interleaved_swiglu = InterleavedSwiglu {
        out: Out<f32>[count],
        x: In<f32>[2 * count],
        count: u64,
        limit: f32,
    } over Grid::each(count);

    /// Rotates pairs of channels that are `apart`; `half` of them are the first of a pair, `step`
    /// from one to the next. `count` is tokens times heads times `half`.
    elementwise::rotate = Rotate {
        x: Out<f32>[count.div_ceil(half) * head_dim],
        cosines: In<f32>[positions * half],
        sines: In<f32>[positions * half],
        count: u64,
        positions: u32,
        heads: u32,
        head_dim: u32,
        half: u32,
        step: u32,
        apart: u32,
    } over Grid::each(count),
        if (half > 0 && (half - 1) * step + apart < head_dim && heads > 0 && positions > 0);

    /// Columns `first` to `first + width` of `x`, which has `from` columns; `count` elements in
    /// all.
    elementwise::columns = Columns {
        out: Out<f32>[count],
        x: In<f32>[(count.div_ceil(width) - 1) * from + first + width],
        count: u64,
        from: u32,
        first: u32,
        width: u32,
    } over Grid::each(count), if (width > 0);

    /// Rows of `x`, which has `left` columns, each followed by that of `y`, which has `right`;
    /// `count` elements in all.
    elementwise::join_columns = JoinColumns {
        out: Out<f32>[count],
        x: In<f32>[count.div_ceil(left + right) * left],
        y: In<f32>[count.div_ceil(left + right) * right],
        count: u64,
        left: u32,
        right: u32,
    } over Grid::each(count), if (left + right > 0);

    /// Each row of `x`, which has `size` columns, `times` times; `count` elements in all.
    elementwise::repeat_rows = RepeatRows {
        out: Out<f32>[count],
        x: In<f32>[count.div_ceil(size * times) * size],
        count: u64,
        size: u32,
        times: u32,
    } over Grid::each(count), if (size * times > 0);

    /// Clamps to -limit..limit; NaN stays NaN.
    elementwise::clamp = Clamp {
        out: Out<f32>[count],
        x: In<f32>[count],
        count: u64,
        limit: f32,
    } over Grid::each(count);

    /// Rounds f32 to the nearest bf16.
    elementwise::narrow_to_bf16 = NarrowToBf16 {
        out: Out<bf16>[count],
        x: In<f32>[count],
        count: u64,
    } over Grid::each(count);

    /// bf16 to f32.
    elementwise::widen_bf16 = WidenBf16 {
        out: Out<f32>[count],
        x: In<bf16>[count],
        count: u64,
    } over Grid::each(count);

    /// f16 to f32.
    elementwise::widen_f16 = WidenF16 {
        out: Out<f32>[count],
        x: In<f16>[count],
        count: u64,
    } over Grid::each(count);

    /// Lowers `first` to the smallest index of an element whose bits of `exponent` are all set.
    elementwise::finite_16 = Finite16 {
        words: In<Bits16>[count],
        count: u64,
        exponent: u32,
        first: Out<u64>[1],
    } over Grid::each(count);

    /// Lowers `first` to the smallest index of an element that is not finite.
    elementwise::finite_32 = Finite32 {
        words: In<Bits32>[count],
        count: u64,
        first: Out<u64>[1],
    } over Grid::each(count);

    /// The rows of `x` with the indices `rows`; `count` elements in rows of `hidden`.
    experts::gather = Gather {
        out: Out<f32>[count],
        x: In<f32>[rows.bound(0) * hidden],
        rows: Indices[count.div_ceil(hidden)],
        count: u64,
        hidden: u32,
    } over Grid::each(count), if (hidden > 0);

    /// As `Gather`, rounded to bf16.
    experts::gather_bf16 = GatherBf16 {
        out: Out<bf16>[count],
        x: In<f32>[rows.bound(0) * hidden],
        rows: Indices[count.div_ceil(hidden)],
        count: u64,
        hidden: u32,
    } over Grid::each(count), if (hidden > 0);

    /// to[rows] += weights * y; the rows are distinct.
    experts::scatter = Scatter {
        to: Out<f32>[rows.bound(0) * hidden],
        y: In<f32>[count],
        rows: Indices[count.div_ceil(hidden)],
        weights: In<f32>[count.div_ceil(hidden)],
        count: u64,
        hidden: u32,
    } over Grid::each(count), if (hidden > 0);

    /// The causal convolution before a selective scan, and that of LFM2, of `count` elements in
    /// rows of `channels`; then SiLU, if `silu` is not 0.
    mamba::causal_conv = CausalConv {
        out: Out<f32>[count],
        x: In<f32>[count],
        taps: In<f32>[channels * kernel],
        bias: Option<In<f32>>[channels],
        count: u64,
        positions: u32,
        channels: u32,
        kernel: u32,
        silu: u32,
    } over Grid::each(count), if (positions > 0 && channels > 0);

    /// The selective scan of Mamba-2. `blocks` is sequences times heads. Its state stays in
    /// registers if `state` is 64 or 128.
    mamba::selective_scan | selective_scan_64 | selective_scan_128 = SelectiveScan(blocks) {
        out: Out<f32>[blocks * positions * head_dim],
        mixed: In<f32>[blocks / heads * positions * (heads * head_dim + 2 * groups * state)],
        steps: In<f32>[blocks * positions],
        dt_bias: In<f32>[heads],
        a_log: In<f32>[heads],
        d: In<f32>[heads],
        heads: u32,
        groups: u32,
        positions: u32,
        head_dim: u32,
        state: u32,
        min_step: f32,
    } over Grid { threads: (head_dim as u32).next_multiple_of(32), ..Grid::rows(blocks)? },
        the match state { 64 => 1, 128 => 2, _ => 0 },
        if (state <= 256 && head_dim <= 1024 && groups > 0 && heads > 0 && heads % groups == 0 && blocks % heads == 0);

    /// A norm of each of `rows` rows of `size` elements. There are weights for each of `weights`
    /// rows, which repeat.
    norm::row_norm = RowNorm(rows) {
        out: Out<f32>[rows * size],
        x: In<f32>[rows * size],
        weight: In<f32>[weights * size],
        bias: Option<In<f32>>[weights * size],
        size: u32,
        weights: u32,
        eps: f32,
        kind: u32,
    } over Grid::rows(rows)?, if (weights > 0);

    /// Streaming statistics of a norm output of `sequences` sequences, in blocks of 32 features.
    tap::tap = Tap(sequences) {
        x: In<f32>[sequences * positions * hidden],
        ladder: In<f32>[rungs],
        extremes: Out<f32>[sequences * 2 * hidden],
        counts: Out<Bits32>[sequences * 2 * hidden * rungs],
        odd: Out<Bits32>[sequences * 2],
        levels: Out<u8>[sequences * positions * hidden],
        rungs: u32,
        positions: u32,
        hidden: u32,
    } over Grid { blocks: (hidden.div_ceil(32) as u32, sequences as u32), threads: THREADS }, if (rungs > 0);
}
