//! Annotations of ingress-nginx: what each is here, and why the others have no counterpart.

use crate::import::manifest::{Field, Fields};

/// What all of them begin with.
const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// Annotations without counterpart, and what to do instead.
const REASONS: &[(&[&str], &str)] = &[
    (
        &["configuration-snippet", "server-snippet", "stream-snippet", "auth-snippet"],
        "is nginx's own language; write what it does as `rules`, `headers` or `limits`",
    ),
    (
        &[
            "enable-modsecurity",
            "enable-owasp-core-rules",
            "modsecurity-snippet",
            "modsecurity-transaction-id",
        ],
        "is a firewall; put one ahead of Splitway or into the service",
    ),
    (
        &[
            "auth-url",
            "auth-signin",
            "auth-signin-redirect-param",
            "auth-method",
            "auth-cache-key",
            "auth-cache-duration",
            "auth-keepalive",
            "auth-keepalive-requests",
            "auth-keepalive-share-vars",
            "auth-keepalive-timeout",
            "auth-always-set-cookie",
            "auth-response-headers",
            "auth-request-redirect",
            "auth-proxy-set-headers",
            "auth-type",
            "auth-secret",
            "auth-secret-type",
            "auth-realm",
            "enable-global-auth",
            "satisfy",
        ],
        "authenticates, which Splitway does not do; its requests are answered 503: put an authenticating proxy behind it, as the track's endpoint, then take the rule away",
    ),
    (
        &[
            "auth-tls-secret",
            "auth-tls-verify-client",
            "auth-tls-verify-depth",
            "auth-tls-error-page",
            "auth-tls-match-cn",
            "auth-tls-pass-certificate-to-upstream",
        ],
        "asks clients for certificates; its requests are answered 503: write `client_ca` at the listener's `tls`, which is for all hosts, then take the rule away",
    ),
    (
        &[
            "cors-allow-origin",
            "cors-allow-methods",
            "cors-allow-headers",
            "cors-expose-headers",
            "cors-allow-credentials",
            "cors-max-age",
        ],
        "says nothing without `enable-cors`",
    ),
    (
        &["mirror-target", "mirror-request-body", "mirror-host"],
        "copies to an address; `mirror` copies to a track",
    ),
    (
        &["default-backend", "custom-http-errors", "disable-proxy-intercept-errors"],
        "replaces error pages; Splitway passes on what the service answers",
    ),
    (
        &["ssl-passthrough"],
        "passes TLS through; Splitway ends it: give the listener the certificate",
    ),
    (
        &["from-to-www-redirect"],
        "answers for a second name; write a service for that host with a `redirect` rule",
    ),
    (
        &["force-ssl-redirect"],
        "believes X-Forwarded-Proto of a balancer; write a rule `match: { headers: { x-forwarded-proto: http } }` with `redirect` to https",
    ),
    (&["limit-rate", "limit-rate-after"], "slows answers down; there is no counterpart"),
    (&["limit-whitelist"], "excepts networks from the limit; `rate_limit` is for everybody"),
    (&["custom-headers"], "names a ConfigMap; write its fields at `headers.response.set`"),
    (
        &["proxy-cookie-domain", "proxy-cookie-path", "proxy-redirect-from", "proxy-redirect-to"],
        "rewrites answers; let the service know its public name",
    ),
    (&["connection-proxy-header"], "sets Connection, which Splitway writes by itself"),
    (
        &[
            "proxy-ssl-secret",
            "proxy-ssl-verify-depth",
            "proxy-ssl-protocols",
            "proxy-ssl-ciphers",
            "proxy-ssl-server-name",
        ],
        "is of the connection to the endpoints; write the track's `tls`",
    ),
    (
        &["upstream-hash-by-subset", "upstream-hash-by-subset-size"],
        "keeps clients on a group of endpoints; `balance` keeps them on one",
    ),
    (&["proxy-next-upstream-timeout"], "bounds all tries together; `timeouts.request` does"),
];

/// Annotations that change nothing about who gets which answer, and how it is here.
const HARMLESS: &[(&[&str], &str)] = &[
    (
        &[
            "proxy-buffering",
            "proxy-request-buffering",
            "proxy-buffer-size",
            "proxy-buffers-number",
            "proxy-busy-buffers-size",
            "proxy-max-temp-file-size",
            "client-body-buffer-size",
        ],
        "Splitway holds nothing back: bodies pass as they come, in both directions",
    ),
    (&["enable-access-log", "enable-rewrite-log"], "is one for all services, at `log.access`"),
    (
        &[
            "enable-opentelemetry",
            "opentelemetry-trust-incoming-span",
            "opentelemetry-operation-name",
            "enable-opentracing",
            "opentracing-trust-incoming-span",
        ],
        "is one for all services, at `tracing`",
    ),
    (
        &["ssl-ciphers", "ssl-prefer-server-ciphers"],
        "is decided by Splitway: TLS 1.2 and 1.3 with forward secrecy; `min_version: 1.3` narrows it",
    ),
    (&["proxy-http-version"], "is HTTP/1.1, or the track's `protocol`"),
    (&["http2-push-preload"], "asks for pushes, which browsers have given up"),
    (
        &[
            "affinity-mode",
            "session-cookie-path",
            "session-cookie-domain",
            "session-cookie-samesite",
            "session-cookie-conditional-samesite-none",
            "session-cookie-secure",
            "session-cookie-change-on-failure",
            "session-cookie-expires",
        ],
        "is decided by Splitway: the cookie is the host's, `HttpOnly` and `SameSite=Lax`",
    ),
    (&["preserve-trailing-slash"], "paths pass as they are"),
];

/// The annotations of one Ingress.
#[derive(Debug)]
pub(super) struct Notes<'m> {
    fields: Option<Fields<'m>>,
}

impl<'m> Notes<'m> {
    pub(super) fn read(whole: &Field<'m>) -> Self {
        let metadata = whole.map().get("metadata").map(|metadata| metadata.map());
        let fields = metadata.and_then(|metadata| Some(metadata.get("annotations")?.map()));
        Self { fields }
    }

    pub(super) fn get(&self, name: &str) -> Option<Field<'m>> {
        self.fields.as_ref()?.get(&format!("{PREFIX}{name}"))
    }

    /// Whether it is there, left to be told of.
    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.as_ref().is_some_and(|fields| fields.has(&format!("{PREFIX}{name}")))
    }

    /// Its value, unless it is empty.
    pub(super) fn text(&self, name: &str) -> Option<&'m str> {
        self.get(name)?.text().map(str::trim).filter(|text| !text.is_empty())
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.number()
    }

    /// Every annotation that nobody asked for is a finding.
    pub(super) fn finish(&self, is_canary: bool) {
        for (name, field) in self.fields.iter().flat_map(Fields::rest) {
            let Some(own) = name.strip_prefix(PREFIX) else {
                if name.starts_with("cert-manager.io/") {
                    field.differs("asks for a certificate by way of this Ingress; write a Certificate with the same secretName");
                } else if name.starts_with("nginx.org/") || name.starts_with("haproxy.org/") {
                    field.unsupported("is another controller's, and ingress-nginx ignores it");
                } else if name != "kubernetes.io/ingress.class" {
                    field.exact("is for others, and stays as it is");
                }
                continue;
            };
            let of = |table: &'static [(&[&str], &'static str)]| {
                table.iter().find(|(names, _)| names.contains(&own)).map(|(_, reason)| *reason)
            };
            if is_canary {
                field.exact("is ignored on a canary, by ingress-nginx, too");
            } else if let Some(reason) = of(HARMLESS) {
                field.differs(reason);
            } else if let Some(reason) = of(REASONS) {
                field.unsupported(reason);
            } else {
                field.unsupported("is not known here and is left out");
            }
        }
    }
}
