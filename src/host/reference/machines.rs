//! Primitives of machines, as scripts see them.

use super::primitive::{Area, Primitive, opt};

pub(super) const AREA: Area = Area {
    title: "Machines",
    about: "Machines are had, worked on and given back. Whatever a run still has when it ends is given back then.",
    primitives: &[
        Primitive {
            name: "provision_gpu",
            signatures: &["provision_gpu(options?: map) -> gpu"],
            summary: "A machine to work on: this one, one that you have, or a rented one. It returns when the machine can be worked on.",
            options: &[
                opt("provider", "\"local\" | \"ssh\" | \"runpod\" | \"slurm\"", "\"local\"", "whose machine"),
                opt("gpu", "string | array", "any", "GPUs to take, best first, by name or part of it"),
                opt("gpu_count", "int", "1", "GPUs of one machine"),
                opt("min_vram_gb", "float", "", "GB per GPU, at least"),
                opt("min_cuda", "string", "\"12.8\"", "runpod: CUDA version that the host must support"),
                opt("cloud", "\"secure\" | \"community\" | \"any\"", "\"any\"", "runpod: kind of host"),
                opt("max_price", "float", "", "USD per hour that it may cost"),
                opt("max_cost", "float", "", "USD that it may cost in all; it ends itself before that"),
                opt("max_hours", "float", "12.0", "it ends itself after so many hours"),
                opt("disk_gb", "int", "60, or by model", "disk"),
                opt("image", "string", "", "container image with sshd and cuBLAS"),
                opt(
                    "host",
                    "string",
                    "",
                    "ssh: user@machine:port, ssh://user@machine:port, a name of ~/.ssh/config, or \"localhost\"",
                ),
                opt("key", "string", "~/.ssh/config, the SSH agent, ~/.ssh/id_*", "ssh: file of the private key"),
                opt(
                    "fingerprint",
                    "string",
                    "",
                    "ssh: fingerprint that its host key must have, or the line of `ssh-keygen -lf`; the user vouches for it with --host-key",
                ),
                opt(
                    "known_hosts",
                    "string",
                    "",
                    "ssh: file that its host key must stand in, beside ~/.ssh/known_hosts",
                ),
                opt("partition", "string", "", "slurm: partition"),
                opt("account", "string", "", "slurm: account"),
                opt("qos", "string", "", "slurm: quality of service"),
                opt("gres", "string", "", "slurm: generic resources, such as \"gpu:1\""),
                opt("cpus", "int", "", "slurm: cores"),
                opt("memory_gb", "int", "", "slurm: memory"),
                opt("lease_minutes", "float", "15.0", "it ends itself when its client is silent for so long"),
                opt("stall_minutes", "float", "60.0", "it ends itself when its work makes no progress for so long"),
                opt("patience_minutes", "float", "10.0", "how long a silent machine is tried to be reached"),
                opt("keep_running", "bool", "false", "it outlives the run, until it is terminated"),
                opt("expected_hours", "float", "0.1", "how long the work is thought to take, for the budget"),
                opt("task", "string", "", "a later run with the same task takes the machine over if this one dies"),
                opt("model", "string | map", "", "what will run, in the words of estimate_vram: it is looked at first"),
            ],
            example: r#"let gpu = provision_gpu(#{ provider: "local" });
print(gpu.provider);"#,
        },
        Primitive {
            name: "attach_gpu",
            signatures: &["attach_gpu(id: string) -> gpu"],
            summary: "A machine that another run has kept running, rented or over SSH, by its id or name as `outlier gpus` lists it. It is \
                      left running when this run ends; here it is \"local\", which is always there.",
            options: &[],
            example: r#"let gpu = attach_gpu("local");
print(gpu.models());"#,
        },
        Primitive {
            name: "models",
            signatures: &["models(gpu: gpu) -> array"],
            summary: "The models that are loaded on a machine, ready for extract_layernorms, in the order in which they were loaded.",
            options: &[],
            example: r#"let gpu = provision_gpu();
load_model(gpu, "examples/shakespeare-olmoe");
print(gpu.models().len());"#,
        },
        Primitive {
            name: "limit_cost",
            signatures: &["limit_cost(most: number) -> ()"],
            summary: "USD that all machines of this run may cost together.",
            options: &[],
            example: "limit_cost(25.0);",
        },
        Primitive {
            name: "sync",
            signatures: &["sync(gpu: gpu, options: map) -> map"],
            summary: "Copies files and folders of the project there and back, only what differs. Secrets such as .env and keys stay here, and \
                      neither they nor what is run here (stdlib/, scripts/, *.rhai, Makefile …) are fetched. What is fetched replaces files that \
                      differ below results/, logs/ and checkpoints/ only, or where --allow-write says so.",
            options: &[
                opt("up", "string | array", "[]", "files and folders to send"),
                opt("down", "string | array", "[]", "files and folders to fetch"),
            ],
            example: r#"let gpu = provision_gpu(#{ provider: "ssh", host: "localhost" });
print(gpu.sync(#{ up: "examples/README.md" }).files_sent);"#,
        },
        Primitive {
            name: "upload",
            signatures: &["upload(gpu: gpu, from: string, to: string) -> ()"],
            summary: "Copies one file to the machine; a relative path is in the project's folder there.",
            options: &[],
            example: r#"let gpu = provision_gpu(#{ provider: "ssh", host: "localhost" });
gpu.upload("examples/README.md", "data/notes.md");"#,
        },
        Primitive {
            name: "download",
            signatures: &["download(gpu: gpu, from: string, to: string) -> ()"],
            summary: "Copies one file from the machine; a relative path is in the project's folder there. Here it is neither hidden nor one \
                      that is run here (stdlib/, scripts/, *.rhai, Makefile …), and it replaces a file that differs below results/, logs/ and \
                      checkpoints/ only, or where --allow-write says so.",
            options: &[],
            example: r#"let gpu = provision_gpu(#{ provider: "ssh", host: "localhost" });
gpu.upload("examples/README.md", "data/notes.md");
gpu.download("data/notes.md", "results/notes.md");"#,
        },
        Primitive {
            name: "run_command",
            signatures: &["run_command(gpu: gpu, command: string) -> map"],
            summary: "Runs a shell command in the project's folder on the machine; gives code, out and err, 64 MiB of each at most. On this \
                      machine, under whatever address, only with `outlier run --allow-commands`.",
            options: &[],
            example: r#"let gpu = provision_gpu(#{ provider: "ssh", host: "localhost" });
let r = gpu.run_command("echo hello");
print(r.out);"#,
        },
        Primitive {
            name: "terminate",
            signatures: &["terminate(gpu: gpu) -> ()"],
            summary: "Gives the machine back, and returns when the provider lists it no more. Twice is no error.",
            options: &[],
            example: r#"let gpu = provision_gpu();
gpu.terminate();"#,
        },
        Primitive {
            name: "terminate_left_over",
            signatures: &["terminate_left_over(task: string) -> ()"],
            summary: "Gives back machines that runs which died have left at work on a task: it is done.",
            options: &[],
            example: r#"terminate_left_over("olmoe_1b_7b");"#,
        },
    ],
};
