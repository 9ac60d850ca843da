//! The files of a model as a source of bytes: in a folder, on the hub, or in a GGUF file; and which
//! of them hold its weights.

#[cfg(target_os = "linux")]
pub(super) mod direct;
pub(super) mod folder;
pub(super) mod folders;
pub(super) mod gguf;
pub(super) mod gguf_files;
pub(super) mod shards;
pub(super) mod source;
pub(super) mod streamed;
pub(super) mod weight_formats;
