//! Primitives of machines: provision_gpu, and operations of a machine: the engine's primitives,
//! sync, run_command, terminate.

mod kinds;
mod outgoing;
pub(crate) mod provision;

use std::sync::Arc;

use rhai::{Array, Dynamic, Engine, Map};
use serde_json::json;

use crate::error::{Error, Result};
use crate::host::language::json::to_dynamic;
use crate::host::language::problem::thrown;
use crate::host::primitives::models::requests::{
    ESTIMATE_VRAM, LOAD_MODEL, MINIATURE_MODEL, Place, estimate, load_model, miniature,
};
use crate::host::run::context::Context;
use crate::host::run::places;
use crate::host::values::gpu::Gpu;
use crate::host::values::option_sets::{Declared, NoOptions, register_with_options};
use crate::host::values::readable::register_handle;
use crate::progress::interrupt_requested;
use crate::record::option::option_set;
use crate::record::option_types::Texts;
use crate::record::plain;
use crate::remote::{self, Output};
use provision::{ATTACH_GPU, LIMIT_COST, PROVISION_GPU, TERMINATE, TERMINATE_LEFT_OVER, attach, limit_cost, provision};

/// Bytes of a command's output that are buffered until their line ends.
const LONGEST_LINE: usize = 1 << 20;

option_set! {
    /// The options of sync.
    pub(crate) struct SyncOptions {
        /// files and folders to send
        up: Texts = Vec::new();
        /// files and folders to fetch
        down: Texts = Vec::new();
    }
}

pub(crate) const MODELS: Declared<NoOptions> = Declared::new(
    "models",
    &["models(gpu: gpu) -> array"],
    "The models that are loaded on a machine, ready for extract_layernorms, in the order in which they were loaded.",
    r#"let gpu = provision_gpu();
load_model(gpu, "examples/shakespeare-olmoe");
print(gpu.models().len());"#,
);

pub(crate) const SYNC: Declared<SyncOptions> = Declared::new(
    "sync",
    &["sync(gpu: gpu, options: map) -> map"],
    "Copies files and folders of the project there and back, only what differs. Secrets such as .env and keys stay here, and \
     neither they nor what is run here (stdlib/, scripts/, *.rhai, Makefile …) are fetched. What is fetched replaces files that \
     differ below results/, logs/ and checkpoints/ only, or where --allow-write says so.",
    r#"let gpu = provision_gpu(#{ provider: "ssh", host: "localhost" });
print(gpu.sync(#{ up: "examples/README.md" }).files_sent);"#,
);

pub(crate) const UPLOAD: Declared<NoOptions> = Declared::new(
    "upload",
    &["upload(gpu: gpu, from: string, to: string) -> ()"],
    "Copies one file to the machine; a relative path is in the project's folder there.",
    r#"let gpu = provision_gpu(#{ provider: "ssh", host: "localhost" });
gpu.upload("examples/README.md", "data/notes.md");"#,
);

pub(crate) const DOWNLOAD: Declared<NoOptions> = Declared::new(
    "download",
    &["download(gpu: gpu, from: string, to: string) -> ()"],
    "Copies one file from the machine; a relative path is in the project's folder there. Here it is neither hidden nor one \
     that is run here (stdlib/, scripts/, *.rhai, Makefile …), and it replaces a file that differs below results/, logs/ and \
     checkpoints/ only, or where --allow-write says so.",
    r#"let gpu = provision_gpu(#{ provider: "ssh", host: "localhost" });
gpu.upload("examples/README.md", "data/notes.md");
gpu.download("data/notes.md", "results/notes.md");"#,
);

pub(crate) const RUN_COMMAND: Declared<NoOptions> = Declared::new(
    "run_command",
    &["run_command(gpu: gpu, command: string) -> map"],
    "Runs a shell command in the project's folder on the machine; gives code, out and err, 64 MiB of each at most. On this \
     machine, under whatever address, only with `outlier run --allow-commands`.",
    r#"let gpu = provision_gpu(#{ provider: "ssh", host: "localhost" });
let r = gpu.run_command("echo hello");
print(r.out);"#,
);

pub(crate) fn register(engine: &mut Engine, context: &Arc<Context>) {
    register_handle::<Gpu>(engine);
    let c = context.clone();
    register_with_options!(engine, PROVISION_GPU, |; options| provision(&c, options));
    engine_primitives(engine, context);
    let c = context.clone();
    engine.register_fn(LIMIT_COST.name(), move |most: Dynamic| thrown(limit_cost(&c, &most)));
    let c = context.clone();
    engine.register_fn(TERMINATE_LEFT_OVER.name(), move |task: &str| {
        thrown(match (task.trim().is_empty(), &c.stage) {
            (true, _) => Err(Error::bad_argument("terminate_left_over: the task is empty")
                .hint("name it as option `task` of provision_gpu did")),
            (false, Some(_)) => Ok(()),
            (false, None) => c.fleet.give_back(task),
        })
    });
    let c = context.clone();
    engine.register_fn(ATTACH_GPU.name(), move |id: &str| thrown(attach(&c, id)));
    let c = context.clone();
    engine.register_fn(MODELS.name(), move |gpu: Gpu| thrown(models(&c, &gpu)));
    let c = context.clone();
    engine.register_fn(SYNC.name(), move |gpu: Gpu, options: Map| thrown(sync(&c, &gpu, options)));
    let c = context.clone();
    engine.register_fn(UPLOAD.name(), move |gpu: Gpu, from: &str, to: &str| thrown(upload(&c, &gpu, from, to)));
    let c = context.clone();
    engine.register_fn(DOWNLOAD.name(), move |gpu: Gpu, from: &str, to: &str| thrown(download(&c, &gpu, from, to)));
    let c = context.clone();
    engine.register_fn(RUN_COMMAND.name(), move |gpu: Gpu, command: &str| thrown(run_command(&c, &gpu, command)));
    let c = context.clone();
    engine.register_fn(TERMINATE.name(), move |gpu: Gpu| thrown(gpu.machine().end(&c)));
}

/// The same primitives on another machine.
fn engine_primitives(engine: &mut Engine, context: &Arc<Context>) {
    let c = context.clone();
    register_with_options!(engine, LOAD_MODEL, |gpu: Gpu, id: &str; args| {
        load_model(&Place { session: &gpu.machine().session(), context: &c }, id, args)
    });
    let c = context.clone();
    engine.register_fn(MINIATURE_MODEL.name(), move |gpu: Gpu, name: &str| {
        let results = gpu.machine().results(&c);
        thrown(miniature(&Place { session: &gpu.machine().session(), context: &c }, &results, name))
    });
    let c = context.clone();
    register_with_options!(engine, ESTIMATE_VRAM, |gpu: Gpu, id: &str; options| {
        estimate(&Place { session: &gpu.machine().session(), context: &c }, id, options)
    });
}

fn sync(context: &Context, gpu: &Gpu, options: Map) -> Result<Dynamic> {
    let SyncOptions { up, down } = SYNC.read(options)?;
    if up.is_empty() && down.is_empty() {
        return Err(Error::bad_argument("sync: neither `up` nor `down` is given")
            .hint("gpu.sync(#{ up: [\"models/mine\"], down: [\"results/mine\"] })"));
    }
    context.may_fail("sync")?;
    up.iter().chain(&down).try_for_each(|path| remote::inside("sync", path))?;
    down.iter().try_for_each(|path| remote::accepted("sync", path))?;
    let report = gpu.machine().sync(context, &up, &down)?;
    Ok(to_dynamic(&plain(&report)))
}

// Names are checked before the machine is contacted.

/// Copies a file of the project to the machine.
fn upload(context: &Context, gpu: &Gpu, from: &str, to: &str) -> Result<()> {
    context.may_fail("upload")?;
    remote::inside("upload", from)?;
    remote::sendable("upload", from)?;
    gpu.machine().upload(context, from, to)
}

/// Copies a file of the machine into the project.
fn download(context: &Context, gpu: &Gpu, from: &str, to: &str) -> Result<()> {
    context.may_fail("download")?;
    remote::inside("download", to)?;
    remote::accepted("download", to)?;
    places::within(context, "download", &context.root.join(to), "")?;
    gpu.machine().download(context, from, to)
}

/// Handles of the models that are loaded on a machine.
pub(crate) fn models(context: &Context, gpu: &Gpu) -> Result<Array> {
    let session = gpu.machine().session();
    let place = Place { session: &session, context };
    session.loaded()?.into_iter().map(|args| place.load(args).map(Dynamic::from)).collect()
}

/// Runs a shell command in the project's folder there. Its output is shown as it comes, and
/// returned.
fn run_command(context: &Context, gpu: &Gpu, command: &str) -> Result<Dynamic> {
    context.may_fail("run_command")?;
    let (mut out, mut err, mut shown) = (Vec::new(), Vec::new(), Vec::new());
    let code = gpu.machine().run(context, command, &mut |piece| {
        if interrupt_requested() {
            return Err(Error::interrupted());
        }
        let (Output::Out(bytes) | Output::Err(bytes)) = piece;
        match piece {
            Output::Out(_) => remote::keep(&mut out, bytes)?,
            Output::Err(_) => remote::keep(&mut err, bytes)?,
        }
        shown.extend_from_slice(bytes);
        // Whole lines, and pieces of too long ones.
        if let Some(end) =
            shown.iter().rposition(|byte| *byte == b'\n').or((shown.len() > LONGEST_LINE).then_some(shown.len() - 1))
        {
            let lines: Vec<u8> = shown.drain(..=end).collect();
            String::from_utf8_lossy(&lines).lines().for_each(|line| context.line(line.trim_end()));
        }
        Ok(())
    })?;
    if !shown.is_empty() {
        context.line(&String::from_utf8_lossy(&shown));
    }
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(to_dynamic(&json!({ "code": code, "out": text(out), "err": text(err) })))
}
