//! Secrets: values that cannot be printed and that only `expose` returns, their sources and
//! permitted destinations, and the names of files that hold them.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::OnceLock;

/// Files and folders that hold keys, tokens, passwords or what was typed, by custom.
const NAMES: &str = ".git .ssh .ssh2 .putty .keys .gnupg .gpg .password-store .pki .step .acme.sh keyrings keychains secring.gpg \
    .aws .azure .gcloud .oci .ibmcloud .kube kubeconfig .docker .dockercfg .dockerconfigjson .terraform .terraform.d .terraformrc \
    .ansible .chef .vagrant.d .databrickscfg .snowsql .runpod .huggingface .kaggle kaggle.json .boto .s3cfg .passwd-s3fs rclone.conf \
    .config .netrc _netrc .npmrc .yarnrc .yarnrc.yml .pypirc .pip pip.conf .m2 .gem .bundle .composer .subversion auth.json nuget.config \
    gradle.properties .pgpass pgpass.conf .my.cnf .mylogin.cnf .mysql_secret .vault-token .git-credentials .htpasswd .htdigest \
    .smbcredentials .msmtprc .fetchmailrc .authinfo .mbsyncrc .offlineimaprc .muttrc .curlrc .wgetrc .vnc .xauthority .iceauthority \
    .erlang.cookie .rhosts .shosts authorized_keys stored_tokens .mozilla .thunderbird logins.json key3.db key4.db cookies.txt \
    cookies.sqlite .bitcoin .ethereum .electrum wallet.dat .viminfo .lesshst fish_history consolehost_history.txt history.sqlite \
    htpasswd htdigest sftp-config.json sitemanager.xml wp-config.php \
    .modal.toml .modal .renviron .flaskenv .claude.json .claude .codex .gemini .comet.config clearml.conf .clearml .neptune .sentryclirc \
    ngrok.yml .ngrok2 .condarc .mambarc .vastai .lambda_cloud .replicate .vercel .netlify .fly .pulumi .hcloud .linode-cli .doctl \
    .cdsapirc .ecmwfapirc .wakatime.cfg .snowflake .dbt .odbc.ini .mongorc.js .pg_service.conf .mcp.json .bashrc .bash_profile .zshrc .zshenv .zprofile .profile authinfo.gpg .lftprc .b2_account_info .gitcookies \
    .hgrc .arcrc local.settings.json database.yml application.properties keyring.gpg keyring.kbx";
/// What begins like a name of secrets and a separator, and is called so by the programs that make
/// it.
const ALIKE: &[&str] = &[".git-blame-ignore-revs", ".git_archival.txt", ".aws-sam"];
/// Folders and settings with secrets that are packed under their names without the point in front:
/// `ssh.tgz`.
const PACKED_ALONE: &[&str] = &[
    "ssh",
    "ssh2",
    "aws",
    "azure",
    "gcloud",
    "gnupg",
    "gpg",
    "kube",
    "netrc",
    "npmrc",
    "password-store",
    "pgpass",
    "pypirc",
    "mozilla",
    "thunderbird",
];
/// Files that are secret only in a folder of this name.
const THERE: &[(&str, &str)] = &[
    ("huggingface", "token"),
    ("etc", "shadow"),
    ("etc", "shadow-"),
    ("etc", "gshadow"),
    ("etc", "gshadow-"),
    ("etc", "sudoers"),
    ("gh", "hosts.yml"),
    ("gcloud", "access_tokens.db"),
];
/// What names end with of keys, of stores of passwords, and of settings and states that hold them
/// in the clear.
const ENDS: &str = ".env .envrc .pem .p8 .p12 .pk8 .pfx .pkcs12 .jks .jceks .bcfks .keystore .keytab .keychain .keychain-db \
    .kdb .kdbx .psafe3 .agilekeychain .opvault .1pux .ppk .ovpn .privkey .keyring .netrc .pgpass .htpasswd .kubeconfig .tfstate .tfvars";
/// The same that are words of texts as well. Another ending may stand behind the first `NO_TITLES`;
/// the others are titles then ("the.secret.txt").
const WORD_ENDS: &[&str] = &[".key", ".passwd", ".password", ".credentials", ".secret", ".secrets", ".token"];
const NO_TITLES: usize = 4;
/// Endings of what somebody wrote a key or password into.
const NOTES: &[&str] = &["txt", "asc", "b64", "enc", "json", "md"];
/// What is put behind the name of a file, and behind a separator, when it is copied, edited,
/// replaced by a package or set aside.
const COPIES: &str = "bak backup backups bck old orig original save saved copy tmp temp swp swo swn new prev previous last dist \
    disabled off dpkg rpmsave rpmnew rpmorig ucf prod production dev local test work home";
/// Endings of what is packed.
const PACKED: &[&str] = &["gz", "zst", "xz", "bz2", "lz4", "br", "zip", "7z", "rar", "tar", "tgz", "txz", "tbz2"];
/// What separates the name of a file from what is put behind it.
const SEPARATORS: &[char] = &['-', '_', '.', '~', '#', ' ', '(', ')', '+', '@', ','];
/// The types of keys that ssh-keygen makes: its files are called so.
const SSH_KEYS: &[&str] = &["id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_xmss"];
/// Words that a file of one of them holds, with whatever ending.
const WORDS: &[&str] = &[
    "secret",
    "secrets",
    "password",
    "passwords",
    "passphrase",
    "passphrases",
    "rootkey",
    "cred",
    "creds",
    "pwd",
    "pwds",
    "mnemonic",
    "seedphrase",
];
/// Words that are secrets where they are the whole name in front of an ending.
const ALONE: &[&str] = &["pass", "passwd", "passwds"];
/// What a password is of in a name of two words: `db_pass`.
const PASS_OF: &str =
    "admin db database email ftp imap login mail master mysql postgres root smtp ssh sudo user vault vpn wifi";
/// Two words that are a secret together: the words that begin a wallet or open an account.
const PAIRS: &[(&str, &str)] = &[
    ("seed", "phrase"),
    ("seed", "phrases"),
    ("recovery", "phrase"),
    ("recovery", "code"),
    ("recovery", "codes"),
    ("backup", "code"),
    ("backup", "codes"),
    ("mnemonic", "phrase"),
];
/// Words that are one of these where a key or token follows: `api_key`, `access-token`. A key of
/// answers is none.
const OF_WHAT: &str = "access accesskey account admin anthropic anyscale api auth aws azure bearer bot claude clearml cloudflare \
    cohere comet deepseek deploy deployment digitalocean discord encryption gcloud gcp gemini gh github gitlab google gpg groq heroku \
    hetzner hf huggingface jwt kaggle lambda linode login master mistral modal neptune ngrok npm oauth openai openrouter personal pgp priv \
    private prv pypi recovery refresh replicate rsa runpod sa secret sendgrid sentry session signing slack ssh ssl storage stripe telegram tls \
    together twilio vast vastai vault wandb wg wireguard xai";
/// Endings of names of settings, beside none at all. What else a secret word stands in there is a
/// list of secrets.
const SETTINGS: &[&str] =
    &["", "json", "yaml", "yml", "toml", "ini", "conf", "cfg", "config", "properties", "xml", "plist", "enc", "db"];

/// Whether a part of `path` is a name that secrets have: such files are neither read into a script,
/// nor sent to a machine, nor accepted from one. It judges the name only: of a link, ask for where
/// it leads as well. A second name of the same file (a hard link) tells nothing of the first.
pub fn secret_name(path: &Path) -> bool {
    let parts: Vec<String> = path.iter().map(|part| part.to_string_lossy().to_lowercase()).collect();
    let there = |pair: &[String]| THERE.iter().any(|(folder, file)| pair[0] == *folder && pair[1] == *file);
    parts.iter().any(|part| is_secret(part)) || parts.windows(2).any(there)
}

/// Whether secrets are called so, or were before somebody made a copy.
fn is_secret(part: &str) -> bool {
    let known = || NAMES.split_ascii_whitespace();
    let is_copy = !ALIKE.contains(&part) && known().any(|known| is_behind(part, known));
    let is_packed = PACKED.iter().any(|packed| part.strip_suffix(packed).is_some_and(|stem| stem.ends_with('.')));
    // An editor puts # around a name.
    let mut names = std::iter::successors(Some(part.trim_matches('#')), |name| shorter(name));
    is_copy
        || names.any(|name| {
            // It also hides a file that it has open: ".kubeconfig.swp".
            let bare = name.trim_start_matches('.');
            known().any(|known| known == name || known == bare)
                || is_packed && PACKED_ALONE.contains(&bare)
                || has_end(name)
                || name.starts_with(".env")
                || name.starts_with('.') && (name.contains("history") || name.contains("histfile"))
                || is_key_of_ssh(bare)
                || is_of_a_network(bare)
                || is_called_secret(name)
        })
}

/// Whether a name has one of the endings of secrets, alone or in front of another ending.
fn has_end(name: &str) -> bool {
    let word_ends = |ends: &[&str], ending: &str| ends.iter().any(|end| name.ends_with(&format!("{end}{ending}")));
    ENDS.split_ascii_whitespace().any(|end| name.ends_with(end) || name.contains(&format!("{end}.")))
        || word_ends(WORD_ENDS, "")
        || NOTES.iter().any(|note| word_ends(&WORD_ENDS[..NO_TITLES], &format!(".{note}")))
}

/// Whether a name is a known one with a separator and anything behind it: `.netrc-old`,
/// `.ssh_backup`, `auth.json.1`. What is a word of texts, such as `keyrings`, may begin any name.
fn is_behind(name: &str, known: &str) -> bool {
    let is_word = known.chars().all(|c| c.is_alphabetic() || c == '_')
        && !["kubeconfig", "htpasswd", "htdigest"].contains(&known);
    let rest = if is_word && !known.starts_with('_') { None } else { name.strip_prefix(known) };
    rest.is_some_and(|rest| rest.starts_with(SEPARATORS))
}

/// A name without the last piece that copying, packing or numbering has put behind it.
fn shorter(name: &str) -> Option<&str> {
    let is_added = |piece: &str| {
        piece.bytes().all(|byte| byte.is_ascii_digit())
            || PACKED.contains(&piece)
            || COPIES.split_ascii_whitespace().any(|copy| copy == piece)
    };
    let (before, _) = name.rsplit_once(SEPARATORS).filter(|(_, piece)| is_added(piece))?;
    // A point in front is part of the name.
    (!before.trim_start_matches('.').is_empty()).then_some(before)
}

/// As ssh and ssh-keygen call keys: id_ed25519, id_rsa_work, id_rsa.txt, id_work.pub,
/// ssh_host_rsa_key.
fn is_key_of_ssh(name: &str) -> bool {
    let typed = |key: &str| name.strip_prefix(key).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()));
    let other = name.starts_with("id_") && !name.trim_end_matches(".pub").contains('.');
    other || SSH_KEYS.iter().any(|key| typed(key)) || name.starts_with("ssh_host_")
}

/// As Kerberos and WireGuard call what they are let in with (krb5cc_0, wg0.conf), and as services
/// call the settings of one place: env.production, appsettings.Production.json.
fn is_of_a_network(name: &str) -> bool {
    let (stem, ending) = name.rsplit_once('.').unwrap_or((name, ""));
    let numbered =
        |prefix: &str| stem.strip_prefix(prefix).is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
    let places = ["local", "dev", "development", "live", "prod", "production", "stage", "staging", "test"];
    name.starts_with("krb5cc")
        || ending == "conf" && (numbered("wg") || stem.starts_with("wg-") || stem.starts_with("wireguard"))
        || stem == "env" && places.contains(&ending)
        || name.starts_with("appsettings.") && ending == "json"
}

/// Whether the words of a name say that it is a secret, or a list of secrets: `secrets.json`,
/// `deploy_key`, `prod-credentials.yml`, `service-account-1a2b.json`. Texts that tell of secrets
/// (`secrets_of_the_sea.txt`), tokens of a model (`tokens.txt`) and keys of a table
/// (`key_results.csv`) are none.
fn is_called_secret(name: &str) -> bool {
    let (hidden, name) = (name.starts_with('.'), name.trim_start_matches('.'));
    let (stem, ending) = name.rsplit_once('.').unwrap_or((name, ""));
    let words: Vec<&str> = stem.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let (Some(first), Some(last)) = (words.first(), words.last()) else { return false };
    let is_settings = SETTINGS.contains(&ending);
    let is_what = |word: &str| OF_WHAT.split_ascii_whitespace().any(|what| what == word);
    let singular = |word: &str| word.strip_suffix('s').unwrap_or(word).to_string();
    // Several tokens of a program are more likely those of a text.
    let is_many =
        |what: &str| ["access", "api", "auth", "bearer", "oauth", "personal", "refresh", "secret"].contains(&what);
    let is_pair = |pair: &[&str]| match pair[1] {
        "key" | "keys" | "token" | "pat" => is_what(pair[0]),
        "tokens" => is_many(pair[0]),
        "pass" | "passwd" => PASS_OF.split_ascii_whitespace().any(|of| of == pair[0]),
        second => PAIRS.contains(&(pair[0], second)),
    };
    let is_word = |word: &&str| WORDS.contains(word) || word.starts_with("credential");
    // Both in one word: apikey, accessTokens.
    let is_glued = |word: &&str| {
        let word = singular(word);
        ["key", "token"].iter().filter_map(|end| word.strip_suffix(end)).any(is_what)
    };
    let joined = words.join("_");
    let is_note = NOTES.contains(&ending);
    first.starts_with("credential")
        || words.len() == 1 && WORDS.contains(first)
        || words.len() == 1 && ALONE.contains(first) && (is_note || is_settings && !ending.is_empty())
        || ["private", "secret"].contains(first) && ["asc", "gpg"].contains(&ending)
        || is_settings && !ending.is_empty() && words.iter().any(is_word)
        || ending.is_empty() && is_word(last)
        || ending == "txt" && is_word(last) && !last.starts_with("secret")
        || words.windows(2).any(is_pair)
        || words.iter().any(is_glued)
        || ["service_account", "serviceaccount", "adminsdk", "vault_pass"].iter().any(|what| joined.contains(what))
            && (is_settings || ending == "txt")
        || ending.is_empty() && words.len() > 1 && *last == "key"
        || words.len() == 1
            && ["key", "token"].contains(first)
            && (hidden || is_settings && !ending.is_empty() || ["txt", "pickle"].contains(&ending))
        || name == "token.md"
}

/// Returns whether a component of `path` is the ledger of rented machines, or looks like one of the
/// files that belong to it.
pub fn ledger_name(path: &Path) -> bool {
    path.iter().any(|part| part.to_string_lossy().to_lowercase().starts_with("gpus.sqlite"))
}

/// An API key or access token. It cannot be serialised, and `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Returns None for a blank text.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(text.to_string()))
    }

    /// Returns the value itself. It may be used only in the header or stream that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The variables of the user's `.env` file. They are kept here and not in the environment, so that
/// child processes do not inherit them and threads that read the environment at the same time are
/// not disturbed.
static KEPT: OnceLock<Vec<(String, Secret)>> = OnceLock::new();

/// Makes `named` fall back on these secrets if the environment has no variable of the name. Only
/// the first call has an effect.
pub fn keep(secrets: Vec<(String, Secret)>) {
    let _ = KEPT.set(secrets);
}

/// Returns the secret in an environment variable, or else the kept one of that name. An empty
/// variable hides the kept one.
pub fn named(variable: &str) -> Option<Secret> {
    match std::env::var_os(variable) {
        Some(value) => Secret::new(value.to_str()?),
        None => KEPT.get()?.iter().find(|(name, _)| name == variable).map(|(_, secret)| secret.clone()),
    }
}

/// Returns whether a secret may be sent to this address: over https, or to this computer itself.
pub fn may_travel(address: &str) -> bool {
    is_open_here(address) || reqwest::Url::parse(address).is_ok_and(|url| url.scheme() == "https")
}

/// Returns whether this address is this computer's own over plain http. What is sent to it must
/// pass no proxy, which would get a secret in the clear and pass it on.
pub fn is_open_here(address: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(address) else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let here = || host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    url.scheme() == "http" && here()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_nothing() {
        let secret = Secret::new(" rpa_abcdef1234\n").unwrap();
        assert_eq!(secret.expose(), "rpa_abcdef1234");
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)), "Secret(…) Some(\n    Secret(…),\n)");
        assert_eq!(Secret::new(" \t"), None);
    }

    #[test]
    fn secrets_travel_covered_or_not_at_all() {
        for good in ["https://huggingface.co", "http://127.0.0.1:9", "http://[::1]:80/x", "http://localhost:1"] {
            assert!(may_travel(good), "{good}");
        }
        for bad in ["http://huggingface.co", "http://10.0.0.1", "http://127.0.0.1.nip.io", "ftp://localhost", "", "x"] {
            assert!(!may_travel(bad), "{bad}");
        }
        assert!(!may_travel("http://localhost@evil.example/"));
    }

    #[test]
    fn names_of_secrets_are_known() {
        let secret = ".env sub/.env a/.env.local/b .ENV prod.env docker.env .envrc prod.env.local .env.bak \
            .git/config .git-credentials .netrc .npmrc .pypirc .pgpass .my.cnf .htpasswd site.htpasswd .s3cfg .boto \
            keys/id_ed25519 a/id_rsa.pub id_rsa.bak id_rsa.txt ID_RSA.OLD id_ed25519_work.gz id_work id_work.pub .id_rsa.swp #id_rsa# id_rsa~ \
            id_rsa-cert.pub ssh_host_rsa_key /etc/ssh/ssh_host_ed25519_key.pub .ssh ./.ssh/known_hosts \
            a.pem B.PEM server.key server.key.1 a.p12 a.pfx a.jks a.kdbx a.ppk server.pem.gz apns.p8 http.keytab office.ovpn \
            deploy_key deploy-key deploy_key.txt my_key api_key.txt apikey openai-api-key.json private_key.asc user_accessKeys.csv rootkey.csv \
            results/.keys/3f ~/.cache/huggingface/token hf_token hf_token.txt api_tokens.json .token token.json access_tokens.db github-token.txt \
            /etc/shadow /etc/shadow- passwords.txt wifi-password.ini \
            secrets.json secrets.yaml secrets/prod .secrets.toml secrets.production.json client_secret_12.apps.json app-secrets.yml \
            my_password.txt aws_credentials aws-credentials.txt db-passwords htpasswd server.pem.txt \
            credentials credentials.csv credentials-prod.json .credentials.json application_default_credentials.json \
            service-account.json service_account_prod.json my-service-account.json x-firebase-adminsdk-1a.json serviceAccountKey.json \
            terraform.tfstate terraform.tfstate.backup prod.auto.tfvars prod.tfvars.json \
            .bash_history .zsh_history .python_history .psql_history .bash_history.gz .history fish_history .viminfo \
            .netrc-old .netrc_old .netrc.disabled .netrc.2024-01-01 .netrc.rpmsave .netrc.dpkg-old .pypirc.new .pgpass.prod .git-credentials-backup \
            id_work.gz id_work.2024-01-01 id_work.tar.gz ssh.tgz ssh-backup-2024.tar.gz aws.zip .ssh_backup/x .ssh-old/known .ssh.bak/config .aws-backup/config \
            .git.bak/config .docker-2/config.json .kube@old/config auth.json-old auth.json.1 kubeconfig-prod htpasswd.old .netrc(1) .npmrc+ .envrc-old \
            server.key.txt my.key.txt server.key-old server.key_backup server.pem-old a.kdbx.json a.p12_2 terraform.tfstate-1 smtp.password.txt \
            privkey.txt priv_key.json private.asc secret.gpg wg0.conf wg-home.conf krb5cc_0 krb5cc keyring.gpg login.keyring \
            creds.json creds.txt aws_creds oauth_creds.json cred.json passwd.txt pwd.txt pass.txt db_pass.txt db_pwd.txt mnemonic.txt wallet_mnemonic.txt \
            seed_phrase.txt seedphrase.txt recovery-codes.txt recovery_key.txt github_pat.txt lambda_key.txt lambdakey openai_key.txt token.md TOKEN.md \
            api_key_old api_key.new hf_token-2 .modal.toml .Renviron .flaskenv .claude.json .comet.config clearml.conf .sentryclirc ngrok.yml .condarc \
            .mcp.json .bashrc .bash_profile .zshrc.old home/.profile authinfo.gpg env.local env.production local.settings.json appsettings.Production.json appsettings.json database.yml database.yml.bak \
            .config/gh/hosts.yml gh/hosts.yml .docker/config.json .kube/config kubeconfig kaggle.json auth.json .aws/config wallet.dat";
        for name in secret.split_ascii_whitespace() {
            assert!(secret_name(Path::new(name)), "{name}");
        }
        let other = "scripts/identity.rhai results/x/config.json token models/a/tokenizer.json models/a/tokenizer_config.json id_map.json env \
            tokens.txt tokens.json tokens.safetensors wiki.train.tokens special_tokens_map.json added_tokens.json num_tokens.csv \
            secrets_of_the_sea.txt the_secret.txt secret_garden.txt environment.txt environment.yml envelope.txt gym_env.txt \
            key_results.csv keys.txt keyboard.txt monkey.txt answer_key.txt answer_key.csv hf_tokens.json openai_tokens.csv foreign_keys.csv key.csv turkey turkey.txt \
            history.txt history_of_rome.txt world_history prehistory.md passwordless.md password_policies.txt id_card.txt identity.txt \
            accounts.csv /etc/passwd service_manual.txt state.json states.tf.txt hosts.yml config.json config shadow.txt shadows/a.txt \
            results/a.7z data.tar.gz texts.zip model.safetensors.index.json .gitignore .gitattributes git.txt cookies.md \
            tokens_per_key.csv pass_key.rs keynotes.txt credo.txt authors.json author.json docker.txt kubernetes.md \
            train-00000-of-00001.parquet checkpoint-500/model.safetensors gpt2-medium.1 x.csv.1 \
            .git-blame-ignore-revs .git_archival.txt .gitmodules .dockerignore config.tar.gz docker.tar.gz keys.zip git.tar.gz aws_reviews.zip \
            the.secret.garden.txt the.key.to.rebecca.txt wiki.token.txt keyrings_of_the_sea.txt fish_history_of_norway.txt key.md tokens.md \
            mountain_pass.txt boarding_pass.txt first_pass.json passages.txt pathways.txt seed_1.txt seeds.txt seed_words.txt recovery.txt recovery_plan.txt pat.txt patterns.txt \
            private_life.txt creditors.txt credits.txt mnemonics_of_monks.txt lambda.txt lambda_calculus.txt claude_monet.txt google_tokens.txt env.yml env.txt \
            environment.local.md database.csv application.txt settings.json wiggle.conf krb.txt id.txt ids.json model.fp8.safetensors \
            profile profile.txt profiles.json bashrc.md mcp.json copy.txt backup.tar.gz old new.txt work home test prod.csv 2024-01-01.txt model-2024 gemini.txt";
        for name in other.split_ascii_whitespace() {
            assert!(!secret_name(Path::new(name)), "{name}");
        }
        for name in ["gpus.sqlite", "results/gpus.sqlite-journal", "results/GPUS.SQLITE/x", "gpus.sqlite_of_mine"] {
            assert!(ledger_name(Path::new(name)), "{name}");
        }
        assert!(!ledger_name(Path::new("results/gpus.csv")));
    }
}
