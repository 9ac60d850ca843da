//! Checks of RunPod's answers: ids become parts of addresses, file names and commands, names and
//! reasons are shown on a terminal, and prices are added.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::gpu::failure::Failure;
use crate::gpu::provider::{Description, SshAddress, State};
use crate::plain::plain;

/// Largest number of characters of an id, of a host or user, and of displayed text.
const ID: usize = 64;
const HOST: usize = 253;
const SHOWN: usize = 100;
/// A larger price in USD per hour is a mistake.
const DEAREST: f64 = 10_000.0;
/// The largest number of host keys of a machine.
const HOST_KEYS: usize = 16;
/// Number of characters of a SHA-256 in base64.
const FINGERPRINT: usize = 43;

/// The error for an answer that does not have the documented form.
pub(super) fn unexpected(what: &'static str, answer: &Value) -> Error {
    // The answer itself may contain secrets.
    let keys = answer.as_object().into_iter().flatten().map(|(key, _)| plain(key, 40)).take(20);
    let keys = keys.collect::<Vec<_>>().join(", ");
    Error::of(Failure::RunPodForm { what, keys })
}

/// Checks the id of a pod: letters and digits, safe in addresses and commands.
pub(super) fn is_id(text: &str) -> bool {
    (1..=ID).contains(&text.len()) && of(text, "_-") && !text.starts_with('-')
}

/// Checks the cursor of a listing.
pub(super) fn is_cursor(text: &str) -> bool {
    (1..=512).contains(&text.len()) && of(text, "_-=.+/:")
}

fn of(text: &str, more: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
}

/// A price in USD per hour.
pub(super) fn price(value: &Value) -> Option<f64> {
    value.as_f64().filter(|price| (0.0..=DEAREST).contains(price))
}

/// Text of the service for people.
pub(super) fn shown(value: &Value) -> Option<String> {
    value.as_str().map(|text| plain(text, SHOWN))
}

/// The address of a pod's sshd; None if there is none yet.
fn address(direct: &Value) -> Option<std::result::Result<SshAddress, ()>> {
    let (host, port) = direct["host"].as_str().zip(direct["port"].as_u64())?;
    let user = direct["username"].as_str().unwrap_or("root");
    let word = |text: &str, most, more| (1..=most).contains(&text.len()) && of(text, more) && !text.starts_with('-');
    let port = u16::try_from(port).ok().filter(|port| *port > 0);
    let port = port.filter(|_| word(host, HOST, "-.:") && word(user, ID, "_-."));
    Some(port.map(|port| SshAddress { user: user.to_string(), host: host.to_string(), port }).ok_or(()))
}

/// A pod in an answer.
///
/// # Errors
/// `service` if a needed part is missing or invalid.
pub(super) fn description(pod: &Value) -> Result<Description> {
    let id = pod["id"].as_str().filter(|id| is_id(id));
    let price = if pod["cost"].is_null() { Some(0.0) } else { price(&pod["cost"]) };
    let ssh = address(&pod["ssh"]["direct"]).transpose();
    let (Some(id), Some(name), Some(status), Some(price), Ok(ssh)) =
        (id, shown(&pod["name"]), pod["status"].as_str(), price, ssh)
    else {
        return Err(unexpected("a pod", pod));
    };
    Ok(Description {
        id: id.to_string(),
        name,
        state: match status {
            "PROVISIONING" | "STARTING" => State::Starting,
            "RUNNING" => State::Running,
            "EXITED" => State::Stopped,
            _ => State::Failed,
        },
        gpu: shown(&pod["gpu"]["id"]).unwrap_or_else(|| "CPU".to_string()),
        price,
        ssh,
        created: shown(&pod["createdAt"]).unwrap_or_default(),
        why: String::new(),
    })
}

/// The fingerprints of host keys in the log of a container, which has lines of `ssh-keygen -lf`.
pub fn fingerprints(log: &str) -> Vec<String> {
    let is_hash = |text: &str| text.len() == FINGERPRINT && of(text, "+/");
    let word = |line: &str| {
        let mut words = line.split_whitespace();
        words.next()?.parse::<u32>().ok()?;
        words.next().filter(|word| word.strip_prefix("SHA256:").is_some_and(is_hash)).map(str::to_string)
    };
    log.lines().filter_map(word).take(HOST_KEYS).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_be_is_not_believed() {
        let pod = |change: &dyn Fn(&mut Value)| {
            let direct = json!({ "host": "195.26.233.3", "port": 34446, "username": "root" });
            let mut pod = json!({ "id": "7h9k2m4n6p", "name": "n", "status": "RUNNING", "cost": 1.5,
                                  "ssh": { "proxy": null, "direct": direct } });
            change(&mut pod);
            description(&pod)
        };
        let good = pod(&|_| ()).unwrap();
        assert_eq!((good.id.as_str(), good.ssh.unwrap().port), ("7h9k2m4n6p", 34446));
        assert!(pod(&|pod| pod["ssh"]["direct"] = Value::Null).unwrap().ssh.is_none());
        for id in ["", "../../v2/account", "a b", "$(touch x)", "-f", "a\nb", &"x".repeat(65)] {
            assert!(pod(&|pod| pod["id"] = json!(id)).is_err(), "{id}");
        }
        for host in ["", "-oProxyCommand=x", "a b", "a;b", "a\u{1b}[0m"] {
            assert!(pod(&|pod| pod["ssh"]["direct"]["host"] = json!(host)).is_err(), "{host}");
            assert!(pod(&|pod| pod["ssh"]["direct"]["username"] = json!(host)).is_err(), "{host}");
        }
        for port in [0u64, 65536, 1 << 40] {
            assert!(pod(&|pod| pod["ssh"]["direct"]["port"] = json!(port)).is_err(), "{port}");
        }
        for cost in [-1.0, 1e9] {
            assert!(pod(&|pod| pod["cost"] = json!(cost)).is_err(), "{cost}");
        }
        assert_eq!(pod(&|pod| pod["name"] = json!("\u{1b}[2Jx")).unwrap().name, "\\u{1b}[2Jx");
    }

    #[test]
    fn fingerprints_are_read_from_a_log() {
        let (a, b) = ("A".repeat(43), "+/b1".repeat(10) + "xyz");
        let log = format!(
            "Generating keys\n256 SHA256:{a} root@pod (ED25519)\nSHA256:{a}\n1 SHA256:no\n3072 SHA256:{b} root@pod (RSA)\n"
        );
        assert_eq!(fingerprints(&log), [format!("SHA256:{a}"), format!("SHA256:{b}")]);
        assert_eq!(fingerprints(&log.repeat(100)).len(), HOST_KEYS);
    }
}
