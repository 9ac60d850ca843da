//! Requests and replies as they are sent between a client and a worker. One table lists all
//! requests.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Local;
use super::answer::Verify;
use super::request::{
    DecodeIds, EncodeTexts, EstimateWork, Extract, Load, LoadTokens, Loaded, MakeMiniature, Request, Serve,
};
use crate::error::Result;
use crate::progress::Progress;
use crate::record::{Activations, Estimate, Miniature, Tokens};

/// A request that can be sent.
pub(super) trait Sent: Request {
    /// The name of its reply in messages.
    const ASKS_FOR: &'static str;

    /// The request as it is sent.
    fn op(&self) -> Op;

    /// Its reply out of what was sent.
    ///
    /// # Errors
    /// Returns the reply itself if it belongs to a request of another type.
    fn reply(sent: Reply) -> std::result::Result<Self::Reply, Reply>;
}

/// Declares each request: its name on the wire and its type, the name of its reply on the wire and
/// its type, and what messages call the reply.
macro_rules! requests {
    ($($op:ident($request:ty) => $kind:ident($reply:ty), $name:literal;)+) => {
        /// A request as it is sent.
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[allow(clippy::large_enum_variant)] // one per call
        pub(super) enum Op {
            $($op($request),)+
        }

        /// A reply as it is sent.
        #[derive(Clone, Debug, Serialize, Deserialize)]
        pub(super) enum Reply {
            $($kind(Box<$reply>),)+
        }

        impl Op {
            /// Carries out the request in this process.
            pub(super) fn carry_out(self, local: &Local, progress: &dyn Progress) -> Result<Reply> {
                match self {
                    $(Self::$op(request) => {
                        request.check()?;
                        local.serve(request, progress).map(Box::new).map(Reply::$kind)
                    })+
                }
            }
        }

        impl Reply {
            /// The name for messages.
            pub(super) fn name(&self) -> &'static str {
                match self {
                    $(Self::$kind(_) => $name,)+
                }
            }
        }

        $(
            impl Request for $request {
                type Reply = $reply;
            }

            impl Sent for $request {
                const ASKS_FOR: &'static str = $name;

                fn op(&self) -> Op {
                    Op::$op(self.clone())
                }

                fn reply(sent: Reply) -> std::result::Result<Self::Reply, Reply> {
                    match sent {
                        Reply::$kind(reply) => Ok(*reply),
                        other => Err(other),
                    }
                }
            }
        )+
    };
}

requests! {
    Load(Load) => Model(Loaded), "a model";
    Tokens(LoadTokens) => Tokens(Tokens), "tokens";
    Extract(Extract) => Activations(Activations), "activations";
    Estimate(EstimateWork) => Estimate(Estimate), "an estimate";
    Miniature(MakeMiniature) => Miniature(Miniature), "a miniature model";
    Encode(EncodeTexts) => Ids(Vec<Vec<u32>>), "the ids of texts";
    Decode(DecodeIds) => Texts(Vec<String>), "the texts of ids";
}

impl Op {
    /// A hash of the request.
    pub(super) fn id(&self) -> String {
        let bytes = rmp_serde::to_vec(self).expect("requests can be sent");
        format!("{:x}", Sha256::digest(bytes))[..32].to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{
        ComputeDtype, EstimateArgs, ExtractArgs, LoadArgs, MeasureArgs, ModelInfo, TokenSource, TokensInfo,
    };

    /// Requests and replies as protocol 8 spells them.
    #[derive(Serialize)]
    #[allow(clippy::large_enum_variant)] // one per test
    enum Spelt {
        Load(LoadArgs),
        Tokens(TokenSource),
        Extract { model: LoadArgs, tokens: Tokens, args: ExtractArgs },
        Estimate { model: LoadArgs, args: EstimateArgs },
        Miniature { folder: String, name: String },
        Encode { tokenizer: String, texts: Vec<String>, add_special_tokens: bool },
        Decode { tokenizer: String, ids: Vec<Vec<u32>>, skip_special_tokens: bool },
    }

    #[derive(Serialize)]
    enum SpeltReply {
        Model { info: ModelInfo, folder: String },
        Tokens(Tokens),
        Ids(Vec<Vec<u32>>),
        Texts(Vec<String>),
    }

    fn tokens_info() -> TokensInfo {
        let (source, sha256) = ("script".to_string(), String::new());
        TokensInfo { source, revision: None, num_sequences: 1, sequence_length: 2, sha256, parts: Vec::new() }
    }

    fn model_info() -> ModelInfo {
        let info = serde_json::json!({
            "id": "m", "revision": null, "model_type": "llama", "num_layers": 1, "hidden_size": 2, "vocab_size": 3,
            "num_experts": 0, "num_experts_per_tok": 0, "parameters": 4, "weight_bytes": 16, "dtype": "f32",
            "device": "cpu", "chunk_layers": 2, "synthetic": false, "files": [],
        });
        serde_json::from_value(info).unwrap()
    }

    #[track_caller]
    fn same_bytes(sent: &impl Serialize, spelt: &impl Serialize) {
        assert_eq!(rmp_serde::to_vec_named(sent).unwrap(), rmp_serde::to_vec_named(spelt).unwrap(), "in a frame");
        assert_eq!(rmp_serde::to_vec(sent).unwrap(), rmp_serde::to_vec(spelt).unwrap(), "in the id of a call");
    }

    #[test]
    fn requests_have_the_bytes_of_their_protocol() {
        assert_eq!(super::super::wire::PROTOCOL, 8, "another protocol has another spelling: change it here");
        let model = LoadArgs {
            id: "m".to_string(),
            revision: None,
            dtype: ComputeDtype::F32,
            device: "cpu".to_string(),
            chunk_layers: 2,
            stream: false,
            max_vram: None,
        };
        let tokens = Tokens { ids: vec![vec![1, 2]], info: tokens_info() };
        let args = EstimateArgs {
            num_sequences: 1,
            sequence_length: 2,
            memory_budget: 3,
            logits: true,
            gpus: 1,
            lanes: 0,
            lane_weights: false,
            measure: MeasureArgs::default(),
        };
        let (folder, name) = ("results".to_string(), "tiny".to_string());
        let source = TokenSource::Ids { ids: tokens.ids.clone() };
        same_bytes(&Load(model.clone()).op(), &Spelt::Load(model.clone()));
        same_bytes(&LoadTokens(source.clone()).op(), &Spelt::Tokens(source));
        let extract = Extract { model: model.clone(), tokens: tokens.clone(), args: ExtractArgs::default() };
        let spelt = Spelt::Extract { model: model.clone(), tokens: tokens.clone(), args: ExtractArgs::default() };
        same_bytes(&extract.op(), &spelt);
        let estimate = EstimateWork { model: model.clone(), args: args.clone() };
        same_bytes(&estimate.op(), &Spelt::Estimate { model, args });
        let miniature = MakeMiniature { folder: folder.clone(), name: name.clone() };
        same_bytes(&miniature.op(), &Spelt::Miniature { folder, name });
        let (tokenizer, texts, ids) = ("m".to_string(), vec!["a".to_string()], vec![vec![1, 2]]);
        let (add_special_tokens, skip_special_tokens) = (true, false);
        let encode = EncodeTexts { tokenizer: tokenizer.clone(), texts: texts.clone(), add_special_tokens };
        let spelt = Spelt::Encode { tokenizer: tokenizer.clone(), texts: texts.clone(), add_special_tokens };
        same_bytes(&encode.op(), &spelt);
        let decode = DecodeIds { tokenizer: tokenizer.clone(), ids: ids.clone(), skip_special_tokens };
        same_bytes(&decode.op(), &Spelt::Decode { tokenizer, ids: ids.clone(), skip_special_tokens });
        same_bytes(&Reply::Ids(Box::new(ids.clone())), &SpeltReply::Ids(ids));
        same_bytes(&Reply::Texts(Box::new(texts.clone())), &SpeltReply::Texts(texts));
        let info = model_info();
        let folder = "models/m".to_string();
        let loaded = Loaded { info: info.clone(), folder: folder.clone() };
        same_bytes(&Reply::Model(Box::new(loaded)), &SpeltReply::Model { info, folder });
        same_bytes(&Reply::Tokens(Box::new(tokens.clone())), &SpeltReply::Tokens(tokens));
    }

    #[test]
    fn a_reply_of_another_type_is_handed_back() {
        let tokens = Reply::Tokens(Box::new(Tokens { ids: Vec::new(), info: tokens_info() }));
        assert_eq!(Extract::reply(tokens.clone()).unwrap_err().name(), "tokens");
        assert!(LoadTokens::reply(tokens).is_ok());
    }
}
