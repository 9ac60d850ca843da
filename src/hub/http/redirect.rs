//! Redirects that a hub may not make: they would give away what https covers, or have this computer
//! send requests to services that trust whoever is on it.

use std::net::IpAddr;

use reqwest::Url;

use super::refusal::Refusal;

/// The reason not to follow a redirect of the hub at `endpoint` to `next`.
pub(super) fn refused(endpoint: &Url, next: &Url) -> Option<Refusal> {
    let why = match next.scheme() {
        "http" if endpoint.scheme() == "https" => "a redirect leads from https to plain http",
        "http" | "https" if is_near(next) && !is_near(endpoint) => "a redirect leads to this computer or its provider",
        "http" | "https" => return None,
        _ => "a redirect leads to no address of the web",
    };
    Some(Refusal::Other(why.to_string()))
}

/// True for addresses that mean another machine on each machine: this one itself, and those of the
/// local link, at which providers tell a machine its secrets.
fn is_near(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).trim_end_matches('.');
    match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local() || address.is_unspecified(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unicast_link_local() || address.is_unspecified(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_sends_nobody_to_this_computer() {
        let told = |endpoint: &str, next: &str| {
            let refusal = refused(&Url::parse(endpoint).unwrap(), &Url::parse(next).unwrap());
            refusal.map(|refusal| match refusal {
                Refusal::Other(why) => why,
                _ => String::new(),
            })
        };
        for near in [
            "127.0.0.1:8888",
            "127.1",
            "2130706433",
            "[::1]",
            "localhost.",
            "a.localhost",
            "0.0.0.0",
            "169.254.169.254",
        ] {
            for endpoint in ["http://hub.lab", "http://10.0.0.7:80"] {
                assert!(told(endpoint, &format!("http://{near}/x")).is_some(), "{near}");
            }
            assert!(told("https://hub.lab", &format!("https://{near}/x")).is_some(), "{near}");
            assert_eq!(told("http://localhost:9", &format!("http://{near}/x")), None, "{near}");
        }
        for near in ["[fe80::1]", "[::ffff:127.0.0.1]", "[::]"] {
            assert!(told("http://hub.lab", &format!("http://{near}/x")).is_some(), "{near}");
        }
        assert_eq!(told("https://hub.lab", "https://cdn.lab/x"), None);
        assert_eq!(told("http://hub.lab", "http://cdn.lab/x"), None);
        assert!(told("https://hub.lab", "http://cdn.lab/x").unwrap().contains("plain http"));
        assert!(told("http://hub.lab", "file:///etc/passwd").unwrap().contains("no address of the web"));
    }
}
