//! Activation functions by their names in `config.json`.

use crate::error::Result;
use crate::outside::shown;
use crate::spec::config::Config;
use crate::vocabulary::Activation;

/// The activation function of a key such as `hidden_act`, by its name in transformers.
pub(super) fn activation(c: &Config, key: &str, default: &str) -> Result<Activation> {
    let name = c.opt_str(key)?.unwrap_or_else(|| default.to_string());
    match name.as_str() {
        "silu" | "swish" => Ok(Activation::Silu),
        "relu" => Ok(Activation::Relu),
        "relu2" => Ok(Activation::ReluSquared),
        "gelu" | "gelu_python" => Ok(Activation::GeluErf),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_fast" | "gelu_accurate" => {
            Ok(Activation::GeluTanh)
        }
        _ => Err(c.wrong(
            key,
            &format!("is \"{}\"; supported are silu, relu, relu2, gelu, gelu_new, gelu_pytorch_tanh", shown(&name)),
        )),
    }
}
