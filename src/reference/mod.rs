//! A second implementation: it computes the same description of a model in f64, one token after the
//! other, directly from the definition.
//!
//! It has no kernels, no batches and no streaming. It is slow, and short enough to be read in one
//! sitting. Tests compare every output of the engine with it.

mod arithmetic;
mod experts;
mod mixers;

use crate::error::Result;
use crate::record::{Site, SiteId};
use crate::spec::inventory::{self, Part};
use crate::spec::{Ffn, LayerEmbeddings, Leaves, Linear, Moe, Norm, Reads, Role, Sublayer, TensorSpec};
use crate::tensor::Device;
use crate::weights::OpenModel;
use crate::weights::load::Loader;
use arithmetic::{Array, Row, Rows, activated, feed, linear, norm, rows, sigmoid, softmax};
use experts::choose;
use mixers::{Kept, mix};

/// The results of one sequence.
pub struct Outcome {
    /// The input of each sublayer, [positions][hidden].
    pub sites: Vec<(SiteId, Rows)>,
    /// The logits after the last token, [vocab].
    pub last_logits: Row,
    /// The mean of -log p of each token but the first, in nats.
    pub mean_nll: f64,
}

/// Computes one sequence.
///
/// # Errors
/// The errors of reading the weights.
pub fn compute(model: &OpenModel, ids: &[u32]) -> Result<Outcome> {
    let (spec, load) = (&model.spec, &Load(model));
    let table = load.array(&spec.embedding, Role::Parameter)?;
    let width = spec.embedding.shape[1];
    let mut x: Rows = ids.iter().map(|id| table.values[*id as usize * width..][..width].to_vec()).collect();
    x.iter_mut().flatten().for_each(|value| *value *= spec.embedding_factor);
    let tokens = x.clone();
    if let Some(project) = &spec.project_in {
        let project = load.linear(project)?;
        x = x.iter().map(|x| linear(&project, x)).collect();
    }
    if let Some(positions) = &spec.positions {
        let table = load.array(&positions.weight, Role::Parameter)?;
        for (t, x) in x.iter_mut().enumerate() {
            let row = &table.values[(t + positions.offset) * x.len()..][..x.len()];
            x.iter_mut().zip(row).for_each(|(x, p)| *x += p);
        }
    }
    if let Some(of) = &spec.embedding_norm {
        let of = load.norm(of)?;
        x = x.iter().map(|x| norm(&of, x)).collect();
    }
    let own = spec.layer_embeddings.as_ref().map(|own| load.layer_embeddings(own, ids, &tokens)).transpose()?;
    let (mut sites, mut kept) = (Vec::new(), Kept::new());
    for (layer, described) in spec.layers.iter().enumerate() {
        let loaded = load.all(described)?;
        kept.resize(layer, Vec::new());
        let mut mixed_reads = None;
        let before = x.clone();
        if let Some(mixer) = &loaded.mixer {
            let read = reads(&mixer.reads, &x, None);
            sites.push((SiteId { layer, site: Site::AttnIn }, read.clone()));
            x = write(mixer, x, mix(&mixer.body, &read, &mut kept));
            mixed_reads = Some(read);
        }
        if let Some(ffn) = &loaded.ffn {
            let read = reads(&ffn.reads, if loaded.parallel { &before } else { &x }, mixed_reads.as_ref());
            sites.push((SiteId { layer, site: Site::FfnIn }, read.clone()));
            let fed = match &ffn.body {
                Ffn::Dense(mlp) => read.iter().map(|x| feed(mlp, x)).collect(),
                Ffn::Moe(moe) => {
                    let both = read.iter().zip(if loaded.parallel { &before } else { &x });
                    both.map(|(read, stream)| mixture(load, moe, read, stream)).collect::<Result<_>>()?
                }
                Ffn::NotNeeded => vec![vec![0.0; spec.hidden_size]; x.len()],
            };
            x = write(ffn, x, fed);
        }
        if let (Some(gate), Some(own)) = (&loaded.embedding_gate, &own) {
            for (x, own) in x.iter_mut().zip(own) {
                let size = own.len() / spec.layers.len();
                let gated = linear(&gate.gate, x).into_iter().zip(&own[layer * size..]);
                let gated: Row = gated.map(|(value, e)| activated(gate.activation, value) * e).collect();
                x.iter_mut().zip(norm(&gate.norm, &linear(&gate.up, &gated))).for_each(|(x, added)| *x += added);
            }
        }
        if let Some(scalar) = &loaded.scalar {
            x.iter_mut().flatten().for_each(|value| *value *= scalar.values[0]);
        }
    }
    let before = load.all(&spec.before_head())?;
    if let Some(of) = &before.final_norm {
        x = x.iter().map(|x| norm(of, x)).collect();
    }
    if let Some(project) = &before.project_out {
        x = x.iter().map(|x| linear(project, x)).collect();
    }
    let head = load.array(&spec.head, Role::ToResidual)?;
    let logits: Rows = x
        .iter()
        .map(|x| {
            let mut logits = rows(&head, x);
            if let Some(bias) = &before.head_bias {
                logits.iter_mut().zip(&bias.values).for_each(|(logit, bias)| *logit += bias);
            }
            let shaped = logits.iter().map(|logit| logit * spec.logit_factor);
            shaped.map(|logit| spec.logit_softcap.map_or(logit, |cap| cap * (logit / cap).tanh())).collect()
        })
        .collect();
    let loss = |t: usize| -softmax(&logits[t])[ids[t + 1] as usize].ln();
    let mean_nll = (0..ids.len() - 1).map(loss).sum::<f64>() / (ids.len() - 1) as f64;
    Ok(Outcome { sites, last_logits: logits.last().cloned().unwrap_or_default(), mean_nll })
}

/// The loader of weights.
struct Load<'a>(&'a OpenModel);

impl Load<'_> {
    fn array(&self, weight: &TensorSpec, role: Role) -> Result<Array> {
        let loader = Loader { checkpoint: &self.0.checkpoint, devices: &[Device::Cpu] };
        let tensor = loader.part(&Part { weight: weight.clone(), role })?.remove(0);
        Ok(Array { shape: weight.loaded_shape(), values: tensor.to_f32_vec()?.into_iter().map(f64::from).collect() })
    }

    fn all<L: Leaves<TensorSpec>>(&self, of: &L) -> Result<L::With<Array>> {
        let parts = inventory::parts(of);
        let arrays = parts.iter().map(|part| self.array(&part.weight, part.role)).collect::<Result<_>>()?;
        Ok(inventory::filled(of, arrays))
    }

    /// The embeddings of each token for all layers. `tokens` are its embeddings before the first
    /// layer.
    fn layer_embeddings(&self, of: &LayerEmbeddings, ids: &[u32], tokens: &Rows) -> Result<Rows> {
        let (table, loaded) = (self.array(&of.table, Role::Parameter)?, self.all(of)?);
        let width = of.table.shape[1];
        let size = loaded.norm.weight.values.len();
        let of_token = |(id, x): (&u32, &Row)| -> Row {
            let context: Row = linear(&loaded.projection, x).iter().map(|value| value * of.projection_factor).collect();
            let context = context.chunks(size).flat_map(|part| norm(&loaded.norm, part));
            let own = &table.values[*id as usize * width..][..width];
            own.iter().zip(context).map(|(own, context)| (own * of.factor + context) * of.sum_factor).collect()
        };
        Ok(ids.iter().zip(tokens).map(of_token).collect())
    }

    fn linear(&self, of: &Linear) -> Result<Linear<Array>> {
        let weight = self.array(&of.weight, Role::ToResidual)?;
        let bias = of.bias.as_ref().map(|bias| self.array(bias, Role::Bias)).transpose()?;
        Ok(Linear { weight, bias, order: of.order, rounding: None })
    }

    fn norm(&self, of: &Norm) -> Result<Norm<Array>> {
        let weight = self.array(&of.weight, Role::OtherNorm)?;
        let bias = of.bias.as_ref().map(|bias| self.array(bias, Role::NormBias)).transpose()?;
        Ok(Norm { kind: of.kind, weight, bias, eps: of.eps })
    }
}

fn reads(of: &Reads<Array>, x: &Rows, mixer: Option<&Rows>) -> Rows {
    match of {
        Reads::Norm(of) => x.iter().map(|x| norm(of, x)).collect(),
        Reads::Stream => x.clone(),
        Reads::AsMixer => mixer.unwrap_or(x).clone(),
    }
}

/// x + y, with the norms and the factor of the sublayer that computed y.
fn write<B>(of: &Sublayer<B, Array>, x: Rows, y: Rows) -> Rows {
    let each = |(x, y): (Row, Row)| -> Row {
        let y = of.write_norm.as_ref().map_or(y.clone(), |of| norm(of, &y));
        let sum: Row = x.iter().zip(&y).map(|(x, y)| x + of.factor * y).collect();
        of.sum_norm.as_ref().map_or(sum.clone(), |of| norm(of, &sum))
    };
    x.into_iter().zip(y).map(each).collect()
}

fn mixture(load: &Load, of: &Moe<Array>, read: &[f64], stream: &[f64]) -> Result<Row> {
    let router = &of.router;
    let of_stream = |own: &Option<Norm<Array>>| own.as_ref().map_or(read.to_vec(), |own| norm(own, stream));
    let correction = router.correction_bias.as_ref().map(|bias| &bias.values[..]);
    let logits: Row =
        linear(&router.linear, &of_stream(&router.norm)).iter().map(|l| l * router.logit_factor).collect();
    let chosen = choose(&router.scoring, of.top_k, &logits, correction);
    let x = of_stream(&of.expert_norm);
    let mut y = vec![0.0; x.len()];
    let on_input = of.router.scoring.on_input;
    for (expert, weight) in chosen {
        let weight = weight * router.expert_factors.as_ref().map_or(1.0, |factors| factors.values[expert]);
        let network = load.all(&of.experts.network(expert))?;
        let read: Row = x.iter().map(|x| if on_input { x * weight } else { *x }).collect();
        let out = feed(&network, &read);
        y.iter_mut().zip(out).for_each(|(y, out)| *y += if on_input { out } else { weight * out });
    }
    if let Some(own) = &of.sum_norm {
        y = norm(own, &y);
    }
    if let Some(shared) = &of.shared {
        let factor = shared.gate.as_ref().map_or(1.0, |gate| sigmoid(linear(gate, read)[0]));
        let out: Row = feed(&shared.mlp, read).iter().map(|out| factor * out).collect();
        let out = shared.write_norm.as_ref().map_or(out.clone(), |own| norm(own, &out));
        y.iter_mut().zip(out).for_each(|(y, out)| *y += out);
    }
    Ok(y)
}
