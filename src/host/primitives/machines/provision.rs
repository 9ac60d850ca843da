//! Primitives that give machines and end their costs: provision_gpu, attach_gpu, limit_cost.

use std::io::ErrorKind;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Duration;

use rhai::{Dynamic, Map};

use super::kinds::{Other, Simulated, This};
use crate::error::{Error, Result};
use crate::gpu::{self, JobOptions, ProviderKind, Want};
use crate::home;
use crate::host::primitives::models::requests::{ESTIMATE_VRAM, EstimateOptions, Place, estimated};
use crate::host::run::context::Context;
use crate::host::values::gpu::Gpu;
use crate::host::values::option_sets::{Declared, NoOptions};
use crate::host::values::option_types::ReadOption;
use crate::host::values::options::{Options, number};
use crate::outside;
use crate::record::Estimate;
use crate::record::option::{OptionSet, OptionType, option_set};
use crate::record::option_types::{
    Choice, Flag, Hours, Include, Minutes, Optional, PositiveFloat, Text, Texts, Whole, Word, same_option,
};
use crate::remote::SshTarget;
use crate::session::{Provision, Terms};

/// GPU memory in GB of the driver and its libraries.
const VRAM_BESIDE_GB: f64 = 1.0;
/// Disk space in GB in addition to a model's files.
const DISK_BESIDE: u64 = 20;
/// The option that says whose machine it is.
const PROVIDER: &str = "provider";
/// A worker ends its machine after this time without its client.
const LEASE: Duration = Duration::from_secs(15 * 60);
const STALL: Duration = Duration::from_secs(60 * 60);
const PATIENCE: Duration = Duration::from_secs(10 * 60);
const LIFETIME: Duration = Duration::from_secs(12 * 3600);
const DISK_GB: usize = 60;
/// The largest private key and list of host keys in bytes.
const KEY_FILE: u64 = 16 << 20;

/// Whose machine it is: one of a provider, or this one, which has none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Owner(Option<ProviderKind>);

const LOCAL: Owner = Owner(None);
const SLURM: Owner = Owner(Some(ProviderKind::Slurm));

impl Word for Owner {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("local", LOCAL),
        ("ssh", Self(Some(ProviderKind::Ssh))),
        ("runpod", Self(Some(ProviderKind::RunPod))),
        ("slurm", SLURM),
    ];
}

/// A kind of host of a provider.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cloud(&'static str);

const ANY_CLOUD: Cloud = Cloud("any");

impl Word for Cloud {
    const WORDS: &'static [(&'static str, Self)] =
        &[("secure", Self("secure")), ("community", Self("community")), ("any", ANY_CLOUD)];
}

/// An option that a cluster does not have, because its nodes are fixed.
pub(crate) struct NotOfSlurm<T>(PhantomData<T>);

same_option!(NotOfSlurm);

impl<T: ReadOption> ReadOption for NotOfSlurm<T> {
    fn read(o: &Options, key: &str) -> Result<Option<T::Value>> {
        let value = T::read(o, key)?;
        if value.is_some() && Choice::<Owner>::read(o, PROVIDER)? == Some(SLURM) {
            return Err(Error::bad_argument(format!("{}: provider \"slurm\" cannot look after `{key}`", o.function()))
                .hint("choose nodes by `partition`, `gres` or `gpu`, such as gres: \"gpu:a100:1\""));
        }
        Ok(value)
    }
}

/// A model and its options, or only its id.
pub(crate) struct Work;

impl OptionType for Work {
    type Value = Map;

    fn kind() -> String {
        "string | map".to_string()
    }

    fn literal(_: &Map) -> String {
        String::new()
    }
}

impl ReadOption for Work {
    fn read(o: &Options, key: &str) -> Result<Option<Map>> {
        o.map_of(key, "id")
    }
}

option_set! {
    /// The options of provision_gpu.
    pub(crate) struct ProvisionOptions {
        /// whose machine
        provider: Choice<Owner> = LOCAL;
        /// GPUs to take, best first, by name or part of it
        gpu: Texts = Vec::new() => "any";
        /// GPUs of one machine
        gpu_count: Whole = 1;
        /// GB per GPU, at least
        min_vram_gb: NotOfSlurm<Optional<PositiveFloat>>;
        /// runpod: CUDA version that the host must support
        min_cuda: NotOfSlurm<Optional<Text>>, otherwise gpu::runpod::CUDA.to_string();
        /// runpod: kind of host
        cloud: NotOfSlurm<Optional<Choice<Cloud>>>, otherwise ANY_CLOUD;
        /// USD per hour that it may cost
        max_price: Optional<PositiveFloat>;
        /// USD that it may cost in all; it ends itself before that
        max_cost: Optional<PositiveFloat>;
        /// it ends itself after so many hours
        max_hours: Hours = LIFETIME;
        /// disk; more where `model` needs it
        disk_gb: NotOfSlurm<Optional<Whole>>, otherwise DISK_GB;
        /// container image with sshd and cuBLAS
        image: NotOfSlurm<Optional<Text>>;
        /// ssh: user@machine:port, ssh://user@machine:port, a name of ~/.ssh/config, or "localhost"
        host: Optional<Text>;
        /// ssh: file of the private key
        key: Optional<Text> => "~/.ssh/config, the SSH agent, ~/.ssh/id_*";
        /// ssh: fingerprint that its host key must have, or the line of `ssh-keygen -lf`; the user
        /// vouches for it with --host-key
        fingerprint: Optional<Text>;
        /// ssh: file that its host key must stand in, beside ~/.ssh/known_hosts
        known_hosts: Optional<Text>;
        job: Include<JobOptions>;
        /// it ends itself when its client is silent for so long
        lease_minutes: Minutes = LEASE;
        /// it ends itself when its work makes no progress for so long
        stall_minutes: Minutes = STALL;
        /// how long a silent machine is tried to be reached
        patience_minutes: Minutes = PATIENCE;
        /// it outlives the run, until it is terminated
        keep_running: Flag = false;
        /// how long the work is thought to take, for the budget
        expected_hours: Optional<PositiveFloat>, otherwise gpu::rent::LEAST_HOURS;
        /// a later run with the same task takes the machine over if this one dies
        task: Optional<Text>;
        /// what will run, in the words of estimate_vram: it is looked at first
        model: Optional<Work>;
    }
}

pub(crate) const PROVISION_GPU: Declared<ProvisionOptions> = Declared::new(
    "provision_gpu",
    &["provision_gpu(options?: map) -> gpu"],
    "A machine to work on: this one, one that you have, or a rented one. It returns when the machine can be worked on.",
    r#"let gpu = provision_gpu(#{ provider: "local" });
print(gpu.provider);"#,
);

pub(crate) const LIMIT_COST: Declared<NoOptions> = Declared::new(
    "limit_cost",
    &["limit_cost(most: number) -> ()"],
    "USD that all machines of this run may cost together.",
    "limit_cost(25.0);",
);

pub(crate) const ATTACH_GPU: Declared<NoOptions> = Declared::new(
    "attach_gpu",
    &["attach_gpu(id: string) -> gpu"],
    "A machine that another run has kept running, rented or over SSH, by its id or name as `outlier gpus` lists it. It is \
     left running when this run ends; here it is \"local\", which is always there.",
    r#"let gpu = attach_gpu("local");
print(gpu.models());"#,
);

pub(crate) const TERMINATE: Declared<NoOptions> = Declared::new(
    "terminate",
    &["terminate(gpu: gpu) -> ()"],
    "Gives the machine back, and returns when the provider lists it no more. Twice is no error.",
    r#"let gpu = provision_gpu();
gpu.terminate();"#,
);

pub(crate) const TERMINATE_LEFT_OVER: Declared<NoOptions> = Declared::new(
    "terminate_left_over",
    &["terminate_left_over(task: string) -> ()"],
    "Gives back machines that runs which died have left at work on a task: it is done.",
    r#"terminate_left_over("olmoe_1b_7b");"#,
);

/// Limits the cost in USD of all machines of this run together.
pub(crate) fn limit_cost(context: &Context, most: &Dynamic) -> Result<()> {
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
fn looked_at(context: &Context, model: Map, gpu_count: usize) -> Result<Estimate> {
    let of_work = EstimateOptions::OPTIONS.iter().filter(|option| !option.of_machine).map(|option| option.key);
    let keys: Vec<_> = ["id"].into_iter().chain(of_work).collect();
    let m = Options::new("provision_gpu: model", model.clone(), &keys)?;
    let id = m.required("id", m.string("id")?)?;
    let options = model.into_iter().filter(|(key, _)| key != "id").collect();
    let mut options = ESTIMATE_VRAM.read(options)?;
    options.analysis.gpus = gpu_count.max(1);
    estimated(&Place { session: &context.session, context }, &id, options)
}

/// A file that an option names.
///
/// # Errors
/// If it cannot be read. Libraries that read it would wait for a pipe or a device.
fn file(key: &str, path: Option<String>) -> Result<Option<PathBuf>> {
    let path = path.map(PathBuf::from);
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
}

pub(crate) fn provision(context: &Context, options: ProvisionOptions) -> Result<Gpu> {
    context.acts("provision_gpu");
    let Owner(Some(provider)) = options.provider else {
        return Ok(Gpu::new(This(context.session.clone())));
    };
    let keep_running = options.keep_running;
    let max_hours = options.max_hours.as_secs_f64() / 3600.0;
    let (key, known_hosts) = (options.key, options.known_hosts);
    let target = |host| -> Result<SshTarget> {
        let (key, known_hosts) = (file("key", key)?, file("known_hosts", known_hosts)?);
        Ok(SshTarget { host, key, fingerprint: options.fingerprint, known_hosts })
    };
    let task = |task: String| crate::results::check_name(&task).map(|()| task.replace('/', "-"));
    let mut asked = Provision {
        provider,
        want: Want {
            gpus: options.gpu,
            gpu_count: options.gpu_count,
            min_vram_gb: options.min_vram_gb,
            min_cuda: options.min_cuda,
            cloud: options.cloud.map(|Cloud(cloud)| cloud.to_string()),
            max_price: options.max_price,
            max_cost: options.max_cost,
            max_hours,
            expected_hours: options.expected_hours,
            disk_gb: options.disk_gb.unwrap_or(DISK_GB) as u64,
            image: options.image,
            job: options.job,
        },
        ssh: options.host.map(target).transpose()?,
        terms: Terms {
            lease: (!keep_running).then_some(options.lease_minutes),
            stall: options.stall_minutes,
            lifetime: options.max_hours,
            patience: options.patience_minutes,
        },
        keep_running,
        task: options.task.map(task).transpose()?,
        room: options.disk_gb.map(|gb| gb as u64 * 1_000_000_000),
    };
    // The last check before money is spent, because it takes time.
    if let Some(model) = options.model {
        let estimate = looked_at(context, model, options.gpu_count)?;
        let disk_for_model = estimate.download_bytes / 1_000_000_000 + DISK_BESIDE;
        let vram_for_model = (estimate.vram_bytes as f64 / 1e9 + VRAM_BESIDE_GB).ceil();
        if options.disk_gb.is_none() {
            asked.want.disk_gb = disk_for_model.max(DISK_GB as u64);
        }
        asked.want.min_vram_gb.get_or_insert(vram_for_model);
    }
    if let Some(stage) = &context.stage {
        context.may_fail("provision_gpu")?;
        let part = stage.provision(&asked)?;
        return Ok(Gpu::new(Simulated { part, stage: stage.clone(), here: context.session.clone() }));
    }
    let lent = context.fleet.provision(&asked, &*context.progress())?;
    let label = &lent.label;
    if label.price > 0.0 {
        let most = label.max_cost.unwrap_or(f64::INFINITY).min(label.price * max_hours);
        context.line(&format!("{}: {} at ${:.2}/h, at most ${most:.2} in all", label.id, label.gpu, label.price));
    }
    // What no provider lists is reported at the end.
    if keep_running && label.tenure().is_listed() {
        context.line(&format!(
            "{} will be kept running after this run: ${:.2}/h until it is terminated",
            label.id, label.price
        ));
    }
    Ok(Gpu::new(Other(lent)))
}

/// Connects to a running machine, and leaves it running when this run ends.
pub(crate) fn attach(context: &Context, id: &str) -> Result<Gpu> {
    context.acts("attach_gpu");
    if id == "local" || context.stage.is_some() {
        return Ok(Gpu::new(This(context.session.clone())));
    }
    let terms = Terms { lease: Some(LEASE), stall: STALL, lifetime: LIFETIME, patience: PATIENCE };
    let lent = context.fleet.attach(id, &terms, &*context.progress())?;
    Ok(Gpu::new(Other(lent)))
}
