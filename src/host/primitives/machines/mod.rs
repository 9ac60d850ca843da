//! Primitives of machines: provision_gpu, and operations of a machine: the engine's primitives,
//! sync, run_command, terminate.

mod outgoing;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rhai::{Array, Dynamic, Engine, Map};
use serde_json::json;

use crate::error::{Error, Result};
use crate::gpu::Want;
use crate::home;
use crate::host::language::json::to_dynamic;
use crate::host::language::problem::{ScriptResult, thrown};
use crate::host::primitives::models::requests::{Place, estimate, estimated, load_model, miniature};
use crate::host::run::context::Context;
use crate::host::run::places;
use crate::host::values::gpu::{Gpu, Held};
use crate::host::values::handles::Model;
use crate::host::values::options::{Options, number};
use crate::host::values::readable::register_handle;
use crate::outside;
use crate::progress::interrupt_requested;
use crate::record::{Estimate, plain};
use crate::remote::{self, Output, SshTarget};
use crate::session::{Provision, Session, Terms};
use outgoing::look_at_models;

const PROVIDERS: &[(&str, &str)] = &[("local", "local"), ("ssh", "ssh"), ("runpod", "runpod"), ("slurm", "slurm")];
/// Keys of option `model`: the work to be done, with the options of `estimate_vram`.
const MODEL: &[&str] =
    &["id", "dtype", "revision", "chunk_layers", "num_sequences", "sequence_length", "memory_budget", "logits"];
/// GPU memory in GB of the driver and its libraries.
const VRAM_BESIDE_GB: f64 = 1.0;
/// Disk space in GB in addition to a model's files.
const DISK_BESIDE: u64 = 20;
/// Options that do not apply to a cluster, whose nodes are fixed.
const NOT_OF_SLURM: &[&str] = &["min_vram_gb", "min_cuda", "cloud", "disk_gb", "image"];
/// A worker ends its machine after this time without its client.
const LEASE_MINUTES: f64 = 15.0;
const STALL_MINUTES: f64 = 60.0;
const PATIENCE_MINUTES: f64 = 10.0;
const MAX_HOURS: f64 = 12.0;
const DISK_GB: usize = 60;
/// The largest private key and list of host keys in bytes.
const KEY_FILE: u64 = 16 << 20;
/// Bytes of a command's output that are buffered until their line ends.
const LONGEST_LINE: usize = 1 << 20;

pub(crate) fn register(engine: &mut Engine, context: &Arc<Context>) {
    register_handle::<Gpu>(engine);
    let c = context.clone();
    engine.register_fn("provision_gpu", move |options: Map| thrown(provision(&c, options)));
    let c = context.clone();
    engine.register_fn("provision_gpu", move || thrown(provision(&c, Map::new())));
    engine_primitives(engine, context);
    let c = context.clone();
    engine.register_fn("limit_cost", move |most: Dynamic| thrown(limit_cost(&c, &most)));
    let c = context.clone();
    engine.register_fn("terminate_left_over", move |task: &str| {
        thrown(if c.stage.is_some() { Ok(()) } else { c.fleet.give_back(task) })
    });
    let c = context.clone();
    engine.register_fn("attach_gpu", move |id: &str| thrown(attach(&c, id)));
    let c = context.clone();
    engine.register_fn("models", move |gpu: Gpu| thrown(models(&c, &gpu)));
    let c = context.clone();
    engine.register_fn("sync", move |gpu: Gpu, options: Map| thrown(sync(&c, &gpu, options)));
    let c = context.clone();
    engine.register_fn("upload", move |gpu: Gpu, from: &str, to: &str| thrown(copy(&c, &gpu, from, to, true)));
    let c = context.clone();
    engine.register_fn("download", move |gpu: Gpu, from: &str, to: &str| thrown(copy(&c, &gpu, from, to, false)));
    let c = context.clone();
    engine.register_fn("run_command", move |gpu: Gpu, command: &str| thrown(run_command(&c, &gpu, command)));
    let c = context.clone();
    engine.register_fn("terminate", move |gpu: Gpu| thrown(terminate(&c, &gpu)));
}

/// The same primitives on another machine.
fn engine_primitives(engine: &mut Engine, context: &Arc<Context>) {
    let on = |gpu: &Gpu, context: &Context, work: &dyn Fn(&Place) -> Result<Dynamic>| -> ScriptResult<Dynamic> {
        thrown(work(&Place { session: &gpu.session(), context }))
    };
    let model = move |context: &Context, gpu: Gpu, id: &str, options: Map| {
        on(&gpu, context, &|place| load_model(place, id, options.clone()).map(|model: Model| Dynamic::from(model)))
    };
    let c = context.clone();
    engine.register_fn("load_model", move |gpu: Gpu, id: &str, options: Map| model(&c, gpu, id, options));
    let c = context.clone();
    engine.register_fn("load_model", move |gpu: Gpu, id: &str| model(&c, gpu, id, Map::new()));
    let c = context.clone();
    engine.register_fn("miniature_model", move |gpu: Gpu, name: &str| {
        // On the machine, the project is the folder of the work.
        let results = if matches!(&*gpu.0, Held::Lent(_)) { PathBuf::from("results") } else { c.results() };
        on(&gpu, &c, &|place| miniature(place, &results, name))
    });
    let c = context.clone();
    engine.register_fn("estimate_vram", move |gpu: Gpu, id: &str, options: Map| {
        on(&gpu, &c, &|place| estimate(place, id, options.clone()))
    });
}

/// Limits the cost in USD of all machines of this run together.
fn limit_cost(context: &Context, most: &Dynamic) -> Result<()> {
    match number(most) {
        Some(most) if most > 0.0 && most.is_finite() => {
            if let Some(stage) = context.plan() {
                stage.does(format!("spend at most ${most:.2} on all machines together"));
            }
            context.fleet.limit_cost(most);
            Ok(())
        }
        _ => Err(Error::bad_argument(format!("limit_cost: {most} is no sum of money"))
            .hint("give USD, such as limit_cost(25.0)")),
    }
}

/// The estimate of option `model`.
///
/// # Errors
/// If the model is missing or unreadable. Nothing is paid for yet.
fn looked_at(context: &Context, o: &Options) -> Result<Option<Estimate>> {
    let Some(model) = o.map_of("model", "id")? else { return Ok(None) };
    let m = Options::new("provision_gpu: model", model.clone(), MODEL)?;
    let id = m.required("id", m.string("id")?)?;
    let mut options: Map = model.into_iter().filter(|(key, _)| key != "id").collect();
    if let Some(count) = o.whole("gpu_count")? {
        options.insert("gpus".into(), Dynamic::from(count as i64));
    }
    let place = Place { session: &context.session, context };
    estimated(&place, &id, options).map(Some)
}

fn provision(context: &Context, options: Map) -> Result<Gpu> {
    context.acts("provision_gpu");
    let o = Options::of("provision_gpu", options)?;
    let provider = o.choice("provider", PROVIDERS)?.unwrap_or("local");
    if provider == "local" {
        return Ok(Gpu(Arc::new(Held::Here(context.session.clone()))));
    }
    if let Some(name) = NOT_OF_SLURM.iter().find(|name| provider == "slurm" && o.has(name)) {
        return Err(Error::bad_argument(format!("provision_gpu: provider \"slurm\" cannot look after `{name}`"))
            .hint("choose nodes by `partition`, `gres` or `gpu`, such as gres: \"gpu:a100:1\""));
    }
    let positive = |key: &str, default: f64| match o.float(key)?.unwrap_or(default) {
        value if value > 0.0 && value.is_finite() => Ok(value),
        value => Err(Error::bad_argument(format!("provision_gpu: `{key}` is {value}")).hint("give a number above 0")),
    };
    let optional = |key: &str| if o.has(key) { positive(key, 0.0).map(Some) } else { Ok(None) };
    let minutes = |key: &str, default: f64| o.time(key, 60.0, default);
    let lifetime = o.time("max_hours", 3600.0, MAX_HOURS)?;
    let max_hours = lifetime.as_secs_f64() / 3600.0;
    let keep_running = o.flag("keep_running")?.unwrap_or(false);
    let (disk_gb, min_vram_gb) = (o.whole("disk_gb")?, optional("min_vram_gb")?);
    let lease = minutes("lease_minutes", LEASE_MINUTES)?;
    let mut asked = Provision {
        provider: provider.to_string(),
        want: Want {
            gpus: o.string_or_strings("gpu")?.unwrap_or_default(),
            gpu_count: o.whole("gpu_count")?.unwrap_or(1),
            min_vram_gb,
            min_cuda: o.string("min_cuda")?,
            cloud: o.string("cloud")?,
            max_price: optional("max_price")?,
            max_cost: optional("max_cost")?,
            max_hours,
            expected_hours: optional("expected_hours")?,
            disk_gb: disk_gb.unwrap_or(DISK_GB) as u64,
            image: o.string("image")?,
            partition: o.string("partition")?,
            account: o.string("account")?,
            qos: o.string("qos")?,
            gres: o.string("gres")?,
            cpus: o.whole("cpus")?,
            memory_gb: o.whole("memory_gb")?.map(|gb| gb as u64),
        },
        ssh: o
            .string("host")?
            .map(|host| -> Result<SshTarget> {
                // Libraries that read them would wait for a pipe or a device.
                let path = |key| -> Result<Option<PathBuf>> {
                    let path = o.string(key)?.map(PathBuf::from);
                    if let Some(path) = &path {
                        match outside::read(&home::expanded(path), KEY_FILE) {
                            Err(e) if e.kind() != ErrorKind::NotFound => {
                                let path = crate::plain::plain(&path.display().to_string(), 200);
                                return Err(Error::io(format!("provision_gpu: reading `{key}` {path}"), &e)
                                    .or_hint("it is a file, as `ssh-keygen` and `ssh` write it"));
                            }
                            // A missing file is reported where it is needed.
                            _ => (),
                        }
                    }
                    Ok(path)
                };
                Ok(SshTarget {
                    host,
                    key: path("key")?,
                    fingerprint: o.string("fingerprint")?,
                    known_hosts: path("known_hosts")?,
                })
            })
            .transpose()?,
        terms: Terms {
            lease: (!keep_running).then_some(lease),
            stall: minutes("stall_minutes", STALL_MINUTES)?,
            lifetime,
            patience: minutes("patience_minutes", PATIENCE_MINUTES)?,
        },
        keep_running,
        task: o
            .string("task")?
            .map(|task| crate::results::check_name(&task).map(|()| task.replace('/', "-")))
            .transpose()?,
        room: o.whole("disk_gb")?.map(|gb| gb as u64 * 1_000_000_000),
    };
    // The last check before money is spent, because it takes time.
    if let Some(estimate) = looked_at(context, &o)? {
        let disk_for_model = estimate.download_bytes / 1_000_000_000 + DISK_BESIDE;
        let vram_for_model = (estimate.vram_bytes as f64 / 1e9 + VRAM_BESIDE_GB).ceil();
        asked.want.disk_gb = disk_gb.map_or(disk_for_model.max(DISK_GB as u64), |given| given as u64);
        asked.want.min_vram_gb = min_vram_gb.or(Some(vram_for_model));
    }
    if let Some(stage) = &context.stage {
        context.may_fail("provision_gpu")?;
        let part = stage.provision(&asked)?;
        return Ok(Gpu(Arc::new(Held::Played(part, stage.clone(), context.session.clone()))));
    }
    let lent = context.fleet.provision(&asked, &*context.progress())?;
    let label = &lent.label;
    if label.price > 0.0 {
        let most = label.max_cost.unwrap_or(f64::INFINITY).min(label.price * max_hours);
        context.line(&format!("{}: {} at ${:.2}/h, at most ${most:.2} in all", label.id, label.gpu, label.price));
    }
    // A user's own machine is reported at the end.
    if keep_running && !label.is_own() {
        context.line(&format!(
            "{} will be kept running after this run: ${:.2}/h until it is terminated",
            label.id, label.price
        ));
    }
    Ok(Gpu(Arc::new(Held::Lent(lent))))
}

fn sync(context: &Context, gpu: &Gpu, options: Map) -> Result<Dynamic> {
    let o = Options::of("sync", options)?;
    let list = |key| Ok::<_, Error>(o.string_or_strings(key)?.unwrap_or_default());
    let (up, down) = (list("up")?, list("down")?);
    if up.is_empty() && down.is_empty() {
        return Err(Error::bad_argument("sync: neither `up` nor `down` is given")
            .hint("gpu.sync(#{ up: [\"models/mine\"], down: [\"results/mine\"] })"));
    }
    context.may_fail("sync")?;
    up.iter().chain(&down).try_for_each(|path| remote::inside("sync", path))?;
    down.iter().try_for_each(|path| remote::accepted("sync", path))?;
    if let Held::Played(part, stage, _) = &*gpu.0 {
        down.iter().for_each(|path| stage.writes(Path::new(path)));
        stage.does(format!("sync with {}: {} up, {} down", part.id, up.join(" "), down.join(" ")));
        return Ok(to_dynamic(&plain(&remote::SyncReport::default())));
    }
    let (lent, progress) = (gpu.lent("sync")?, context.progress());
    look_at_models(context, &up, &*progress);
    let replaces = |file: &Path| places::may_replace(context, file);
    let report = lent.sync(&context.root, [&up, &down], context.bounds.commands_here, &replaces, &*progress)?;
    Ok(to_dynamic(&plain(&report)))
}

/// Files on this side are those of the project.
fn copy(context: &Context, gpu: &Gpu, from: &str, to: &str, up: bool) -> Result<()> {
    let name = if up { "upload" } else { "download" };
    let (here, there) = if up { (from, to) } else { (to, from) };
    context.may_fail(name)?;
    // Names are checked before the machine is contacted.
    remote::inside(name, here)?;
    if up {
        remote::sendable(name, here)?;
    } else {
        remote::accepted(name, here)?;
        places::within(context, name, &context.root.join(to), "")?;
    }
    if let Held::Played(part, stage, _) = &*gpu.0 {
        if !up {
            stage.writes(Path::new(to));
        }
        stage.does(format!("{name} {from} to {to}, {}", part.id));
        return Ok(());
    }
    let lent = gpu.lent(name)?;
    if !context.bounds.commands_here {
        lent.confined(name, there)?;
    }
    let (machine, progress) = (lent.machine()?, context.progress());
    match up {
        true => remote::upload(machine, &remote::to_send(name, &context.root, here)?, &lent.path(to), &*progress),
        false => {
            let file = remote::to_receive(name, &context.root, here)?;
            remote::download(machine, &lent.path(from), &file, places::may_replace(context, &file), &*progress)
        }
    }
}

/// A script may run commands on this machine only if the user allows it.
fn may_run(context: &Context, gpu: &Gpu) -> Result<()> {
    let here = match &*gpu.0 {
        Held::Here(_) => true,
        Held::Lent(lent) => lent.is_here(),
        Held::Played(..) => false,
    };
    if here && !context.bounds.commands_here {
        return Err(Error::bad_argument("run_command: commands do not run on this machine")
            .hint("`outlier run --allow-commands SCRIPT` lets them; on other machines they always may"));
    }
    Ok(())
}

fn terminate(context: &Context, gpu: &Gpu) -> Result<()> {
    match &*gpu.0 {
        Held::Here(_) => Ok(()),
        Held::Lent(lent) => context.fleet.end(lent),
        Held::Played(part, stage, _) => {
            context.may_fail("terminate")?;
            stage.end(part);
            Ok(())
        }
    }
}

/// Connects to a running machine, and leaves it running when this run ends.
pub(crate) fn attach(context: &Context, id: &str) -> Result<Gpu> {
    context.acts("attach_gpu");
    if id == "local" || context.stage.is_some() {
        return Ok(Gpu(Arc::new(Held::Here(context.session.clone()))));
    }
    let seconds = |minutes: f64| Duration::from_secs_f64(60.0 * minutes);
    let terms = Terms {
        lease: Some(seconds(LEASE_MINUTES)),
        stall: seconds(STALL_MINUTES),
        lifetime: seconds(60.0 * MAX_HOURS),
        patience: seconds(PATIENCE_MINUTES),
    };
    let lent = context.fleet.attach(id, &terms, &*context.progress())?;
    Ok(Gpu(Arc::new(Held::Lent(lent))))
}

/// Handles of the models that are loaded on a machine.
pub(crate) fn models(context: &Context, gpu: &Gpu) -> Result<Array> {
    let session = gpu.session();
    let place = Place { session: &session, context };
    session.loaded()?.into_iter().map(|args| place.load(args).map(Dynamic::from)).collect()
}

/// Runs a shell command in the project's folder there. Its output is shown as it comes, and
/// returned.
fn run_command(context: &Context, gpu: &Gpu, command: &str) -> Result<Dynamic> {
    context.may_fail("run_command")?;
    may_run(context, gpu)?;
    let here = remote::HereGrouped;
    if let Held::Played(part, stage, _) = &*gpu.0 {
        stage.does(format!("on {}: {command}", part.id));
        return Ok(to_dynamic(&json!({ "code": 0, "out": "", "err": "" })));
    }
    let (machine, line): (&dyn remote::Machine, String) = match &*gpu.0 {
        Held::Here(_) => (&here, command.to_string()),
        Held::Lent(lent) => (lent.machine()?, lent.in_project(&format!("{{ {command}\n}}"))),
        Held::Played(..) => unreachable!("answered above"),
    };
    let (mut out, mut err, mut shown) = (Vec::new(), Vec::new(), Vec::new());
    let code = machine.run(&line, &mut std::io::empty(), &mut |piece| {
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
