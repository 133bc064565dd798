//! What the annotations of an Ingress say of its service, with ingress-nginx's defaults.

use super::notes::Notes;
use crate::import::cors::{Cors, Parts};
use crate::import::draft::{Yaml, duration, map, plain, text};
use crate::import::manifest::Field;

/// What the annotations of a main Ingress say of its service.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// Keys of the service.
    pub(super) service: Vec<(String, Yaml)>,
    /// Keys of its tracks.
    pub(super) track: Vec<(String, Yaml)>,
    /// Fields that requests get.
    pub(super) set: Vec<(String, Yaml)>,
    /// Networks that are let in; empty: all.
    pub(super) allowed: Vec<Yaml>,
    pub(super) denied: Vec<Yaml>,
    /// Everybody is sent there.
    pub(super) redirect: Option<Yaml>,
    pub(super) app_root: Option<String>,
    /// Largest body in bytes; 0: any.
    pub(super) body_bytes: u64,
    pub(super) connections: Option<u64>,
    pub(super) aliases: Vec<String>,
    pub(super) cors: Option<Parts>,
    /// Somebody has asked who they are, and nobody would.
    pub(super) is_closed: bool,
    /// Requests in the clear are sent to HTTPS, where the host has TLS.
    pub(super) redirects_to_tls: bool,
}

/// Reads what is not about the canary or the path.
pub(super) fn settings(notes: &Notes<'_>, whole: &Field<'_>) -> Settings {
    let mut found = Settings {
        is_closed: ["auth-url", "auth-type", "auth-tls-secret"].iter().any(|name| notes.has(name)),
        redirects_to_tls: notes.text("ssl-redirect") != Some("false"),
        // What ingress-nginx has where nobody says otherwise.
        body_bytes: 1 << 20,
        ..Settings::default()
    };
    if let Some(field) = notes.get("proxy-body-size")
        && let Some(bytes) = field.text().and_then(bytes)
    {
        found.body_bytes = bytes;
    }
    found.service.extend(timeouts(notes));
    found.service.extend(retries(notes, whole));
    found.service.extend(balance(notes));
    found.service.extend(sticky(notes));
    found.service.extend(rate_limit(notes));
    found.cors = cors(notes);
    found.connections = notes.number("limit-connections").filter(|count| *count > 0);
    found.track = protocol(notes);
    for (name, header) in [("upstream-vhost", "host"), ("x-forwarded-prefix", "x-forwarded-prefix")]
    {
        if let Some(field) = notes.get(name)
            && let Some(value) = field.text().filter(|value| !value.is_empty())
        {
            if value.contains('$') {
                field.unsupported("has variables; write the value at `headers.request.set`");
            } else {
                field.exact("`headers.request.set`");
                found.set.push((header.to_owned(), text(value)));
            }
        }
    }
    for name in ["whitelist-source-range", "allowlist-source-range"] {
        found.allowed.extend(networks(notes, name));
    }
    found.denied = networks(notes, "denylist-source-range");
    found.redirect = redirect(notes);
    found.app_root = notes.text("app-root").map(str::to_owned);
    let aliases = notes.text("server-alias").unwrap_or_default().split(',').map(str::trim);
    found.aliases = aliases.filter(|alias| !alias.is_empty()).map(str::to_owned).collect();
    if notes.get("service-upstream").is_some_and(|field| field.text() == Some("true")) {
        whole.exact("its Service's address is the endpoint");
    }
    found
}

fn timeouts(notes: &Notes<'_>) -> Option<(String, Yaml)> {
    let of = |name: &str| {
        let ms = notes.get(name)?.duration_ms()?;
        Some(if ms == 0 { plain("off") } else { duration(ms) })
    };
    let (connect, read, send) =
        (of("proxy-connect-timeout"), of("proxy-read-timeout"), of("proxy-send-timeout"));
    if let (Some(field), true) = (notes.get("proxy-send-timeout"), read.is_some() && read != send) {
        field.differs("`between_bytes` is for both directions; that of reading is written");
    }
    let between = read.clone().or(send);
    let entries = [("connect", connect), ("first_byte", read), ("between_bytes", between)];
    let entries: Vec<_> =
        entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    (!entries.is_empty()).then(|| ("timeouts".to_owned(), Yaml::Map(entries)))
}

fn retries(notes: &Notes<'_>, whole: &Field<'_>) -> Option<(String, Yaml)> {
    let conditions = notes.get("proxy-next-upstream");
    let words = conditions.as_ref().and_then(Field::text).unwrap_or("error timeout");
    // Tries with the first; 0 is as many as there are endpoints.
    let tries = notes.number("proxy-next-upstream-tries").unwrap_or(3);
    let attempts = if tries == 0 { 3 } else { tries.saturating_sub(1).min(10) };
    let mut on = Vec::new();
    for word in words.split_whitespace() {
        match word {
            "error" | "invalid_header" => on.push("reset".to_owned()),
            "timeout" => on.push("timeout".to_owned()),
            "off" => return None,
            other => match (other.strip_prefix("http_"), &conditions) {
                (Some(status), _) if status.parse::<u16>().is_ok() => on.push(status.to_owned()),
                (_, Some(field)) => field.differs(format!("`{other}` has no counterpart; a request that may not be sent twice is sent once")),
                (_, None) => {}
            },
        }
    }
    // Words first, then statuses.
    on.sort_by_key(|one| (one.starts_with(|char: char| char.is_ascii_digit()), one.clone()));
    on.dedup();
    if on.is_empty() || attempts == 0 {
        return None;
    }
    conditions.as_ref().unwrap_or(whole).differs(
        "tries again where a connection fails; written as `retries`, which here have a budget of 20 % of the requests",
    );
    let on = on.into_iter().map(plain).collect();
    let retries = map([("attempts", plain(attempts)), ("on", Yaml::List(on))]);
    Some(("retries".to_owned(), retries))
}

fn balance(notes: &Notes<'_>) -> Option<(String, Yaml)> {
    let mut entries = Vec::new();
    if let Some(field) = notes.get("upstream-hash-by")
        && let Some(key) = field.text().filter(|key| !key.is_empty())
    {
        let header = key.strip_prefix("$http_").map(|name| name.replace('_', "-"));
        let is_name =
            |name: &String| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        match (key, header.filter(is_name)) {
            ("$remote_addr" | "$binary_remote_addr", _) => {
                entries.push(("by".to_owned(), plain("key")));
            }
            (_, Some(header)) => {
                entries.push(("by".to_owned(), plain("key")));
                entries.push(("header".to_owned(), text(header)));
            }
            _ => field.unsupported("is no key here; a header or the source may be one"),
        }
        if !entries.is_empty() {
            field.differs("`balance: { by: key }`, by rendezvous hashing; others move when an endpoint leaves, not all");
        }
    }
    if let (Some(field), true) = (notes.get("load-balance"), entries.is_empty()) {
        let by = match field.text()? {
            "round_robin" => "round_robin",
            other => {
                field.differs(format!(
                    "`{other}` has no counterpart: the fewest requests under way, of two drawn"
                ));
                "least_requests"
            }
        };
        entries.push(("by".to_owned(), plain(by)));
    }
    (!entries.is_empty()).then(|| ("balance".to_owned(), Yaml::Map(entries)))
}

fn sticky(notes: &Notes<'_>) -> Option<(String, Yaml)> {
    let field = notes.get("affinity")?;
    if field.text()? != "cookie" {
        field.unsupported("is known as `cookie` alone");
        return None;
    }
    field.differs("keeps a client on its track; its endpoint is kept by `balance: { by: key }`, where a header tells who asks");
    if let Some(behaviour) = notes.get("affinity-canary-behavior")
        && behaviour.text() == Some("legacy")
    {
        behaviour.unsupported(
            "draws anew although a client has its cookie; leave `sticky` away for that",
        );
    }
    let cookie = notes.text("session-cookie-name").unwrap_or("INGRESSCOOKIE");
    let mut entries = vec![("cookie".to_owned(), text(cookie))];
    let age = notes.number("session-cookie-max-age").filter(|seconds| *seconds > 0);
    entries.extend(age.map(|seconds| ("max_age".to_owned(), duration(seconds * 1_000))));
    Some(("sticky".to_owned(), Yaml::Map(entries)))
}

fn rate_limit(notes: &Notes<'_>) -> Option<(String, Yaml)> {
    let burst = notes.number("limit-burst-multiplier").unwrap_or(5);
    let by_second = notes.get("limit-rps");
    let field = by_second.clone().or_else(|| notes.get("limit-rpm"))?;
    let count = field.number().filter(|count| *count > 0)?;
    let rate = count / if by_second.is_some() { 1 } else { 60 };
    if rate == 0 {
        field.unsupported("is less than one in a second, the lowest `rate_limit`");
        return None;
    }
    field.differs("answers 429 where ingress-nginx answers 503");
    let entries = [
        ("per_second", plain(rate.min(1_000_000))),
        ("burst", plain((rate * burst.max(1)).min(1_000_000))),
    ];
    Some(("rate_limit".to_owned(), map(entries)))
}

/// With the defaults that ingress-nginx documents.
fn cors(notes: &Notes<'_>) -> Option<Parts> {
    let field = notes.get("enable-cors").filter(|field| field.text() == Some("true"))?;
    let words = |name: &str, usual: &str| -> Vec<String> {
        let words = notes.text(name).unwrap_or(usual).split(',').map(str::trim);
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let usual_headers = "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,\
                         Content-Type,Range,Authorization";
    let cors = Cors {
        origins: words("cors-allow-origin", "*"),
        methods: words("cors-allow-methods", "GET,PUT,POST,DELETE,PATCH,OPTIONS"),
        headers: words("cors-allow-headers", usual_headers),
        expose: words("cors-expose-headers", ""),
        credentials: notes.text("cors-allow-credentials") != Some("false"),
        max_age_s: Some(notes.number("cors-max-age").unwrap_or(1_728_000)),
        status: 204,
    };
    cors.parts(&field)
}

fn protocol(notes: &Notes<'_>) -> Vec<(String, Yaml)> {
    let Some(field) = notes.get("backend-protocol") else { return Vec::new() };
    let verifies = notes.text("proxy-ssl-verify") == Some("on");
    let mut tls = Vec::new();
    tls.extend(notes.text("proxy-ssl-name").map(|name| ("server_name".to_owned(), text(name))));
    if !verifies {
        tls.push(("verify".to_owned(), plain(false)));
    }
    let tls = ("tls".to_owned(), Yaml::Map(tls));
    let unverified = "believes whoever answers (`verify: false`), as before";
    match field.text().map(str::to_ascii_uppercase).as_deref() {
        Some("HTTP") | None => Vec::new(),
        Some("HTTPS") => {
            field.exact(unverified);
            vec![tls]
        }
        Some("GRPC") => vec![("protocol".to_owned(), plain("h2c"))],
        Some("GRPCS") => {
            field.exact(unverified);
            vec![("protocol".to_owned(), plain("h2")), tls]
        }
        Some(_) => {
            field.unsupported("is none that is spoken here; HTTP, HTTPS, GRPC and GRPCS are");
            Vec::new()
        }
    }
}

fn networks(notes: &Notes<'_>, name: &str) -> Vec<Yaml> {
    let Some(field) = notes.get(name) else { return Vec::new() };
    let words = field.text().unwrap_or_default().split(',').map(str::trim);
    let found: Vec<Yaml> = words.filter(|word| !word.is_empty()).map(text).collect();
    field.exact("a rule that answers 403; behind a balancer, write it to `trusted_proxies`");
    found
}

/// A redirect of everything.
fn redirect(notes: &Notes<'_>) -> Option<Yaml> {
    let ways = [
        ("permanent-redirect", "permanent-redirect-code", 301),
        ("temporal-redirect", "temporal-redirect-code", 302),
    ];
    for (name, code, usual) in ways {
        let status = notes.number(code).unwrap_or(usual);
        let Some(field) = notes.get(name) else { continue };
        let Some(to) = field.text() else { continue };
        let (base, keeps_path) = match to.strip_suffix("$request_uri") {
            Some(base) => (base, true),
            None => (to, false),
        };
        if base.contains('$') {
            field.unsupported("has variables; write `redirect` rules for what they may be");
            continue;
        }
        field.exact("a `redirect` rule");
        return Some(map([
            ("to", text(base)),
            ("keep_path", plain(keeps_path)),
            ("status", plain(status)),
        ]));
    }
    None
}

/// `10m`, `1g`, `512k`, or bytes.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' => (&text[..text.len() - 1], 10),
        b'm' => (&text[..text.len() - 1], 20),
        b'g' => (&text[..text.len() - 1], 30),
        _ => (&*text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_nginx() {
        for (text, wanted) in [
            ("10m", Some(10 << 20)),
            ("1G", Some(1 << 30)),
            ("512k", Some(512 << 10)),
            ("100", Some(100)),
            ("0", Some(0)),
            ("m", None),
            ("-1m", None),
        ] {
            assert_eq!(bytes(text), wanted, "{text}");
        }
    }
}
