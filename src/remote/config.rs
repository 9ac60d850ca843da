//! The settings of `~/.ssh/config` and of the system's file by which a machine is reached. The
//! first value counts. No program is started: `Match exec` blocks are reported and skipped.

use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::failure::Failure;
use super::wildcard::{one_fits, one_fits_host};
use crate::error::{Error, Result};
use crate::home::own_user;
use crate::outside;

/// The largest file in bytes.
const MOST: u64 = 1 << 20;
/// The largest depth of included files, and number of files.
const DEPTH: usize = 16;
const FILES: usize = 1000;
const SYSTEM: &str = "/etc/ssh";

/// The settings of one machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Settings {
    pub host_name: Option<String>,
    pub user: Option<String>,
    pub port: Option<u16>,
    pub identity_files: Vec<String>,
    pub identities_only: Option<bool>,
    pub identity_agent: Option<String>,
    pub proxy_jump: Option<String>,
    pub proxy_command: Option<String>,
    pub user_known_hosts: Option<Vec<String>>,
    pub global_known_hosts: Option<Vec<String>>,
    pub host_key_alias: Option<String>,
    pub revoked_host_keys: Option<String>,
    /// Skipped settings, with the reasons.
    pub notes: Vec<String>,
}

/// The user who runs this program.
pub(super) fn local_user() -> String {
    // SAFETY: the entry is read at once, and its name ends with NUL.
    let name = unsafe {
        let entry = libc::getpwuid(own_user());
        entry.as_ref().map(|entry| CStr::from_ptr(entry.pw_name).to_string_lossy().into_owned())
    };
    name.or_else(|| std::env::var("USER").ok()).unwrap_or_else(|| "root".to_string())
}

pub(super) fn home() -> PathBuf {
    std::env::home_dir().unwrap_or_default()
}

/// The settings of the machine `host`, for the user `user` if given.
///
/// # Errors
/// A file that others may write to or that cannot be read; an invalid setting.
pub(super) fn settings(host: &str, user: Option<&str>) -> Result<Settings> {
    let mut reader = Reader { host, user, found: Settings::default(), files: 0, users: true };
    reader.file(&home().join(".ssh/config"), &home().join(".ssh"), true, 0)?;
    reader.users = false;
    reader.file(&Path::new(SYSTEM).join("ssh_config"), Path::new(SYSTEM), true, 0)?;
    Ok(reader.found)
}

struct Reader<'a> {
    host: &'a str,
    user: Option<&'a str>,
    found: Settings,
    files: usize,
    /// True for the user's files, false for the system's.
    users: bool,
}

impl Reader<'_> {
    /// Relative includes start from `folder`. `active`: lines before the first block are used.
    fn file(&mut self, path: &Path, folder: &Path, active: bool, depth: usize) -> Result<()> {
        let reading = |e: std::io::Error| Error::io(format!("reading {}", path.display()), &e);
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(reading(e)),
        };
        let own = own_user();
        if self.users && (![0, own].contains(&metadata.uid()) || metadata.mode() & 0o022 != 0) {
            return Err(Error::of(Failure::SettingsOfOthers(path.to_path_buf())));
        }
        self.files += 1;
        if depth > DEPTH || self.files > FILES {
            return Err(Error::of(Failure::EndlessIncludes(path.to_path_buf())));
        }
        let bytes = outside::read(path, MOST).map_err(reading)?;
        let mut active = active;
        for (number, text) in String::from_utf8_lossy(&bytes).lines().enumerate() {
            let place = format!("{}, line {}", path.display(), number + 1);
            let Some((keyword, words)) = words(text) else { continue };
            match keyword.as_str() {
                "host" => active = one_fits(words.iter().map(String::as_str), self.host),
                "match" => active = self.matches(&words, &place),
                // An included file cannot end the block of the line.
                "include" if active => {
                    for pattern in &words {
                        for file in glob(folder, &expanded(pattern, &[])) {
                            self.file(&file, folder, true, depth + 1)?;
                        }
                    }
                }
                keyword if active => self.set(keyword, words, &place)?,
                _ => (),
            }
        }
        Ok(())
    }

    fn matches(&mut self, words: &[String], place: &str) -> bool {
        let (mut holds, mut unknown) = (true, None);
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            // As after every keyword, `=` may stand between a criterion and its pattern.
            let (word, given) = word.split_once('=').map_or((word, None), |(word, given)| (word, Some(given)));
            let word = word.to_lowercase();
            let (negated, word) = word.strip_prefix('!').map_or((false, word.as_str()), |word| (true, word));
            if word == "all" {
                holds &= !negated;
                continue;
            }
            if matches!(word, "canonical" | "final") {
                unknown = unknown.or(Some(word.to_string()));
                continue;
            }
            let mut next = || words.next().unwrap_or_default();
            let given = given.filter(|given| !given.is_empty()).unwrap_or_else(|| match next() {
                "=" => next(),
                given => given.strip_prefix('=').unwrap_or(given),
            });
            let patterns = given.split(',');
            let host = self.found.host_name.as_deref().unwrap_or(self.host);
            let local = local_user();
            let true_here = match word {
                "host" => one_fits_host(patterns, host),
                "originalhost" => one_fits_host(patterns, self.host),
                "user" => {
                    let user = self.user.or(self.found.user.as_deref());
                    one_fits(patterns, user.unwrap_or(&local))
                }
                "localuser" => one_fits(patterns, &local),
                _ => {
                    unknown = unknown.or(Some(word.to_string()));
                    continue;
                }
            };
            holds &= true_here != negated;
        }
        // It makes no difference if another criterion fails.
        if let Some(word) = unknown.as_ref().filter(|_| holds) {
            self.found
                .notes
                .push(format!("{place}: `Match {word}` cannot be judged here, so its settings are left out"));
        }
        holds && unknown.is_none()
    }

    fn set(&mut self, keyword: &str, words: Vec<String>, place: &str) -> Result<()> {
        let Some(first) = words.first().cloned() else { return Ok(()) };
        let found = &mut self.found;
        let once = |slot: &mut Option<String>, value: &str| {
            slot.get_or_insert_with(|| value.to_string());
        };
        match keyword {
            "hostname" => once(&mut found.host_name, &first.replace("%h", self.host).replace("%%", "%")),
            "user" => once(&mut found.user, &first),
            "port" => {
                let port = first.parse().ok().filter(|port| *port != 0);
                let wrong = || Failure::BadPort { place: place.to_string(), port: first.clone() };
                let port = port.ok_or_else(|| Error::of(wrong()))?;
                found.port.get_or_insert(port);
            }
            "identityfile" => found.identity_files.push(first),
            "identitiesonly" => {
                found.identities_only.get_or_insert(first.eq_ignore_ascii_case("yes"));
            }
            "identityagent" => once(&mut found.identity_agent, &first),
            // The first of the two is used.
            "proxyjump" if found.proxy_command.is_none() => once(&mut found.proxy_jump, &first),
            "proxycommand" if found.proxy_jump.is_none() => once(&mut found.proxy_command, &words.join(" ")),
            "userknownhostsfile" => drop(found.user_known_hosts.get_or_insert(words)),
            "globalknownhostsfile" => drop(found.global_known_hosts.get_or_insert(words)),
            "revokedhostkeys" => once(&mut found.revoked_host_keys, &first),
            "hostkeyalias" => once(&mut found.host_key_alias, &first),
            _ => (),
        }
        Ok(())
    }
}

/// The lower-case keyword of a line and its words. Quotes join words, and `=` may follow the
/// keyword.
fn words(text: &str) -> Option<(String, Vec<String>)> {
    let text = text.trim();
    if text.is_empty() || text.starts_with('#') {
        return None;
    }
    let end = text.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(text.len());
    let (keyword, rest) = text.split_at(end);
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    let (mut words, mut word, mut quote): (Vec<String>, Option<String>, _) = (Vec::new(), None, None);
    for c in rest.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some((keyword.to_lowercase(), words))
}

/// Expands `~`, `${VARIABLE}` and the `tokens` after `%` in a path.
pub(super) fn expanded(path: &str, tokens: &[(char, &str)]) -> String {
    let home = home().display().to_string();
    let path = match path.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{home}{rest}"),
        _ => path.to_string(),
    };
    let (mut result, mut rest) = (String::new(), path.as_str());
    while let Some(at) = rest.find(['%', '$']) {
        let (before, special) = rest.split_at(at);
        result += before;
        let variable = special.strip_prefix("${").and_then(|name| name.split_once('}'));
        let letter = special.strip_prefix('%').and_then(|rest| rest.chars().next());
        let token = letter.and_then(|letter| match letter {
            '%' => Some("%"),
            'd' => Some(home.as_str()),
            _ => tokens.iter().find(|(known, _)| *known == letter).map(|(_, value)| *value),
        });
        rest = match (variable, token) {
            (Some((name, after)), _) => {
                result += &std::env::var(name).unwrap_or_default();
                after
            }
            (None, Some(value)) => {
                result += value;
                &special[2..]
            }
            (None, None) => {
                result += &special[..1];
                &special[1..]
            }
        };
    }
    result + rest
}

/// A path of the user, with `~` as the home folder.
pub(super) fn path(text: &str) -> PathBuf {
    match text.strip_prefix("~/") {
        Some(rest) => home().join(rest),
        None => PathBuf::from(text),
    }
}

/// The files that match a pattern as in glob(7), sorted. A relative one begins at `folder`.
fn glob(folder: &Path, pattern: &str) -> Vec<PathBuf> {
    // Pattern characters in the folder's own name are escaped.
    let literal = |path: &Path| {
        let special = |byte: &u8| br"*?[\".contains(byte);
        let escaped = path
            .as_os_str()
            .as_bytes()
            .iter()
            .flat_map(|byte| special(byte).then_some(b'\\').into_iter().chain([*byte]));
        escaped.collect::<Vec<u8>>()
    };
    let whole = match pattern.starts_with('/') {
        true => pattern.as_bytes().to_vec(),
        false => [literal(folder).as_slice(), b"/", pattern.as_bytes()].concat(),
    };
    let Ok(whole) = CString::new(whole) else { return Vec::new() };
    // SAFETY: the pattern ends with NUL. `glob` fills the list, whose paths end with NUL.
    let found: Vec<PathBuf> = unsafe {
        let mut list: libc::glob_t = std::mem::zeroed();
        let found = match libc::glob(whole.as_ptr(), 0, None, &raw mut list) {
            0 => std::slice::from_raw_parts(list.gl_pathv, list.gl_pathc),
            _ => &[],
        };
        let copied = found.iter().map(|path| OsStr::from_bytes(CStr::from_ptr(*path).to_bytes()).into()).collect();
        libc::globfree(&raw mut list);
        copied
    };
    found.into_iter().filter(|path| path.is_file()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn of(folder: &Path, host: &str, user: Option<&str>) -> Result<Settings> {
        let mut reader = Reader { host, user, found: Settings::default(), files: 0, users: true };
        reader.file(&folder.join("config"), folder, true, 0)?;
        Ok(reader.found)
    }

    fn write(folder: &Path, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        fs::write(folder.join(name), text).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[test]
    fn the_first_word_counts_and_keys_add_up() {
        let folder = tempfile::tempdir().unwrap();
        let text = "# ours\nHost gpu gpu-?\n  HostName=%h.example.org\n  Port 2222\n\tUser \"me too\"\n  IdentityFile ~/.ssh/a\n\
                    Host !gpu-9 *\n  User other\n  Port 22\n  IdentityFile '/b c' # behind\n  ProxyJump none\n\
                    Host *.lab\n  ProxyCommand ssh -W %h:%p gate\n  ProxyJump gate\n";
        write(folder.path(), "config", text);
        let gpu = of(folder.path(), "gpu-1", None).unwrap();
        assert_eq!(gpu.host_name.as_deref(), Some("gpu-1.example.org"));
        assert_eq!((gpu.user.as_deref(), gpu.port), (Some("me too"), Some(2222)));
        assert_eq!(gpu.identity_files, ["~/.ssh/a", "/b c"]);
        assert_eq!(gpu.proxy_jump.as_deref(), Some("none"));
        let nine = of(folder.path(), "gpu-9", None).unwrap();
        assert_eq!((nine.user.as_deref(), nine.identity_files.len(), nine.proxy_jump), (Some("me too"), 1, None));
        let lab = of(folder.path(), "x.lab", None).unwrap();
        assert_eq!(
            (lab.user.as_deref(), lab.proxy_jump.as_deref(), lab.proxy_command),
            (Some("other"), Some("none"), None)
        );
    }

    #[test]
    fn files_are_included_where_they_stand() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("config.d")).unwrap();
        write(folder.path(), "config", "Host a\n Include config.d/*\n Port 1\nHost b\n Port 2\n");
        write(folder.path(), "config.d/1", "User included\nHost b\n User never\n");
        write(folder.path(), "config.d/2", "Port 7\n");
        let a = of(folder.path(), "a", None).unwrap();
        assert_eq!((a.user.as_deref(), a.port), (Some("included"), Some(7)));
        let b = of(folder.path(), "b", None).unwrap();
        assert_eq!((b.user, b.port), (None, Some(2)));
        write(folder.path(), "config.d/2", "Include config.d/2\n");
        assert!(of(folder.path(), "a", None).unwrap_err().message.contains("include each other"));
    }

    #[test]
    fn blocks_are_matched_as_far_as_they_can_be_judged() {
        let folder = tempfile::tempdir().unwrap();
        let text = "Match host a user me,you\n Port 1\nMatch !originalhost a\n Port 2\nMatch exec \"touch /tmp/x\"\n User evil\n\
                    Match all\n User last\n";
        write(folder.path(), "config", text);
        let settings = of(folder.path(), "a", Some("me")).unwrap();
        assert_eq!((settings.port, settings.user.as_deref()), (Some(1), Some("last")));
        assert!(settings.notes[0].contains("line 5: `Match exec` cannot be judged here"), "{:?}", settings.notes);
        assert_eq!(of(folder.path(), "b", Some("me")).unwrap().port, Some(2));
    }

    #[test]
    fn criteria_and_patterns_may_have_an_equals_sign_between_them() {
        let folder = tempfile::tempdir().unwrap();
        for criteria in
            ["host=box", "host = box", "host= box", "host =box", "!host=other", "host=\"box\"", "Host=x,BOX user=me"]
        {
            write(folder.path(), "config", &format!("Match {criteria}\n Port 3\n"));
            let settings = of(folder.path(), "box", Some("me")).unwrap();
            assert_eq!((settings.port, settings.notes.len()), (Some(3), 0), "{criteria}");
        }
        write(folder.path(), "config", "Match exec=\"test 1=1\" host=box\n Port 3\n");
        let settings = of(folder.path(), "box", None).unwrap();
        assert!(settings.notes[0].contains("`Match exec` cannot be judged"), "{:?}", settings.notes);
        assert_eq!(settings.port, None);
    }

    #[test]
    fn what_cannot_match_anyway_is_not_told() {
        let folder = tempfile::tempdir().unwrap();
        for criteria in ["host other exec \"true\"", "exec \"true\" host other", "final user nobody", "exec true !all"]
        {
            write(folder.path(), "config", &format!("Match {criteria}\n Port 3\n"));
            let settings = of(folder.path(), "box", Some("me")).unwrap();
            assert_eq!((settings.port, settings.notes.len()), (None, 0), "{criteria}");
        }
    }

    #[test]
    fn hosts_are_matched_as_they_were_typed() {
        let folder = tempfile::tempdir().unwrap();
        // The output of `ssh -G` for box, Box and BOX.
        write(folder.path(), "config", "Host Box\n Port 1\nMatch host BOX\n User small\nMatch user SMALL\n Port 2\n");
        for (host, port) in [("box", None), ("Box", Some(1)), ("BOX", None)] {
            let settings = of(folder.path(), host, None).unwrap();
            assert_eq!((settings.port, settings.user.as_deref()), (port, Some("small")), "{host}");
        }
    }

    #[test]
    fn included_files_are_named_by_any_pattern_of_a_shell() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a [x]*");
        fs::create_dir_all(inner.join("config.d")).unwrap();
        for (name, port) in [("10-lab", 10), ("20-home", 20), ("zz", 30), (".hidden", 40)] {
            write(&inner.join("config.d"), name, &format!("Port {port}\n"));
        }
        for (pattern, port) in [
            ("config.d/[0-9]*", Some(10)),
            ("config.d/[!0-9]*", Some(30)),
            ("config.d/[[:digit:]]0-h*", Some(20)),
            ("config.d/?z", Some(30)),
            ("config.d/.h*", Some(40)),
            ("*/zz", Some(30)),
            ("config.d/zz", Some(30)),
            ("config.d/\\zz", Some(30)),
            ("config.d/[0-9]", None),
            ("config.d/[0-9", None),
            ("nosuch/*", None),
        ] {
            write(&inner, "config", &format!("Include {pattern}\n"));
            assert_eq!(of(&inner, "box", None).unwrap().port, port, "{pattern}");
        }
    }

    #[test]
    fn what_others_may_write_to_is_not_believed() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "config", "Host a\n Port 1\n");
        fs::set_permissions(folder.path().join("config"), fs::Permissions::from_mode(0o622)).unwrap();
        assert_eq!(of(folder.path(), "a", None).unwrap_err().kind, Kind::Auth);
        write(folder.path(), "config", "Host a\n Port many\n");
        assert!(of(folder.path(), "a", None).unwrap_err().message.contains("line 2: Port is many"));
    }

    #[test]
    fn paths_are_expanded() {
        let home = home().display().to_string();
        assert_eq!(expanded("~/a", &[]), format!("{home}/a"));
        assert_eq!(expanded("%d/%h-%%-%x${HOME}$", &[('h', "host")]), format!("{home}/host-%-%x{home}$"));
        assert_eq!(path("~/a"), PathBuf::from(format!("{home}/a")));
    }
}
