//! Activation functions by their names in `config.json`.

use crate::error::Result;
use crate::outside::shown;
use crate::spec::config::Config;
use crate::vocabulary::Activation;

/// Functions and their names, as `ACT2CLS` of transformers has them. Those with learned parameters
/// (`prelu`, `xielu`) are not among them.
static NAMED: [(&[&str], Activation); 16] = [
    (&["silu", "swish"], Activation::Silu),
    (&["relu"], Activation::Relu),
    (&["relu2"], Activation::ReluSquared),
    (&["gelu", "gelu_python"], Activation::GeluErf),
    (&["gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate"], Activation::GeluTanh),
    (&["quick_gelu"], Activation::GeluQuick),
    (&["gelu_10"], Activation::GeluClipped),
    (&["relu6"], Activation::Relu6),
    (&["leaky_relu"], Activation::LeakyRelu),
    (&["mish"], Activation::Mish),
    (&["hardswish"], Activation::HardSwish),
    (&["sqrtsoftplus"], Activation::SqrtSoftplus),
    (&["laplace"], Activation::Laplace),
    (&["sigmoid"], Activation::Sigmoid),
    (&["tanh"], Activation::Tanh),
    (&["linear"], Activation::Linear),
];

/// The activation function of a key such as `hidden_act`, by its name in transformers.
pub(super) fn activation(c: &Config, key: &str, default: &str) -> Result<Activation> {
    let name = c.opt_str(key)?.unwrap_or_else(|| default.to_string());
    match NAMED.iter().find(|(names, _)| names.contains(&name.as_str())) {
        Some((_, activation)) => Ok(*activation),
        None => {
            let supported: Vec<&str> = NAMED.iter().flat_map(|(names, _)| *names).copied().collect();
            Err(c.uncomputed(key, &format!("is \"{}\"; supported are {}", shown(&name), supported.join(", "))))
        }
    }
}

/// The same where one projection gives the gate and what it gates.
pub(super) fn of_halves(activation: Activation) -> Activation {
    let named = NAMED.iter().find(|(_, named)| *named == activation);
    named.map_or(activation, |(_, named)| Activation::Halves(named))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All of `ACT2CLS` in transformers without parameters of their own, and one with.
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
            (&["relu6"], Activation::Relu6),
            (&["leaky_relu"], Activation::LeakyRelu),
            (&["mish"], Activation::Mish),
            (&["laplace"], Activation::Laplace),
            (&["hardswish"], Activation::HardSwish),
            (&["sqrtsoftplus"], Activation::SqrtSoftplus),
            (&["gelu_10"], Activation::GeluClipped),
            (&["sigmoid"], Activation::Sigmoid),
            (&["tanh"], Activation::Tanh),
            (&["linear"], Activation::Linear),
        ] {
            names.iter().for_each(|name| assert_eq!(of(name).unwrap(), expected, "{name}"));
            assert!(matches!(of_halves(expected), Activation::Halves(half) if *half == expected));
        }
        let error = of("prelu").unwrap_err();
        assert!(error.message.contains("is \"prelu\"; supported are silu, swish, relu,"), "{error}");
        assert!(error.hint.unwrap().contains("is not computed"));
    }
}
