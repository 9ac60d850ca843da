//! Activation functions by their names in `config.json`.

use crate::error::Result;
use crate::outside::shown;
use crate::spec::config::Config;
use crate::vocabulary::Activation;

/// The names that are read, for messages; others of them mean the same functions.
const SUPPORTED: &str = "silu, relu, relu2, gelu, gelu_new, gelu_pytorch_tanh, quick_gelu";

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
        "quick_gelu" => Ok(Activation::GeluQuick),
        _ => Err(c.uncomputed(key, &format!("is \"{}\"; supported are {SUPPORTED}", shown(&name)))),
    }
}

/// The same where one projection gives the gate and what it gates.
pub(super) fn of_halves(activation: Activation) -> Activation {
    Activation::Halves(match activation {
        Activation::Relu => &Activation::Relu,
        Activation::ReluSquared => &Activation::ReluSquared,
        Activation::GeluTanh => &Activation::GeluTanh,
        Activation::GeluErf => &Activation::GeluErf,
        Activation::GeluQuick => &Activation::GeluQuick,
        _ => &Activation::Silu,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those of `ACT2CLS` in transformers that are computed, and one that is not.
    #[test]
    fn names_of_one_function_mean_one_function() {
        let of = |name: &str| {
            let text = format!("{{\"hidden_act\": \"{name}\"}}");
            activation(&Config::parse(&text, "config.json").unwrap(), "hidden_act", "silu")
        };
        for (names, expected) in [
            (&["silu", "swish"][..], Activation::Silu),
            (&["gelu", "gelu_python"], Activation::GeluErf),
            (
                &["gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate"],
                Activation::GeluTanh,
            ),
            (&["quick_gelu"], Activation::GeluQuick),
            (&["relu"], Activation::Relu),
            (&["relu2"], Activation::ReluSquared),
        ] {
            names.iter().for_each(|name| assert_eq!(of(name).unwrap(), expected, "{name}"));
        }
        let error = of("mish").unwrap_err();
        assert!(error.message.contains("is \"mish\"; supported are silu, relu,"), "{error}");
        assert!(error.hint.unwrap().contains("is not computed"));
    }
}
