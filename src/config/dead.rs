//! What a file says that can never come to pass, or hardly as it was meant. No fault, since the
//! rest serves well; but whoever wrote it thinks that something is guarded, or compared.

use crate::route::path;

use super::fault::Fault;
use super::material::Material;
use super::paths;
use super::section::Reader;
use super::types::{Config, Match, Rule, Service};
use super::validate::host_name;
use super::values::{At, Named, TextTest};

/// Seconds of a day.
const DAY_S: i64 = 86_400;

/// Everything that is dead in `config` by itself.
#[must_use]
pub fn warnings(config: &Config) -> Vec<Fault> {
    let mut reader = Reader::default();
    reader.below("services", |check| {
        for (index, one) in config.services.iter().enumerate() {
            check.below_index(index, |check| service(one, check));
        }
    });
    reader.faults
}

/// Certificates of listeners that clients will refuse, at `now_s` seconds since 1970.
#[must_use]
pub fn certificates(config: &Config, material: &Material, now_s: i64) -> Vec<Fault> {
    let mut reader = Reader::default();
    let all = config.listeners.iter().zip(&material.listeners);
    for (index, (listener, made)) in all.enumerate() {
        let (Some(tls), Some(made)) = (&listener.tls, made) else { continue };
        for (position, pair) in tls.certificates.iter().enumerate() {
            let mut say = |message: String| {
                let field = format!("listeners[{index}].tls.certificates[{position}]");
                reader.faults.push(Fault { place: Some(pair.place), field, message });
            };
            let age_s = made.ends_s.get(position).map_or(0, |end_s| now_s - end_s);
            let name = &pair.certificate.value;
            if age_s > 0 {
                let days = age_s / DAY_S;
                say(format!("`{name}` expired {days} days ago, so clients refuse it; renew it"));
            }
            if made.nameless.contains(&position) {
                say(format!(
                    "`{name}` is for no name (it has no subjectAltName), so clients refuse it; \
                     have it issued for the hosts that it serves"
                ));
            }
        }
    }
    reader.faults
}

fn service(service: &Service, check: &mut Reader) {
    for (index, host) in service.hosts.iter().enumerate() {
        let name = host_name(host);
        if host.ends_with('.') {
            let message = format!("`{}` is compared without its last dot; write {name}", &**host);
            let fault = |check: &mut Reader| check.fault(host.place, message);
            check.below("hosts", |check| check.below_index(index, fault));
        }
    }
    for (index, path) in service.paths.iter().enumerate() {
        let remark = paths::remark(&TextTest::Plain(path.value.clone()), service);
        if let Some(message) = remark {
            let fault = |check: &mut Reader| check.fault(path.place, message);
            check.below("paths", |check| check.below_index(index, fault));
        }
    }
    check.below("tracks", |check| tracks(service, check));
    check.below("rules", |check| {
        for (index, one) in service.rules.iter().enumerate() {
            check.below_index(index, |check| rule(service, index, one, check));
        }
    });
    let excluded = service.rollout.iter().flat_map(|rollout| &rollout.evidence.exclude);
    check.below("rollout.evidence.exclude", |check| {
        for (index, one) in excluded.enumerate() {
            check.below_index(index, |check| one_match(service, one, check));
        }
    });
}

/// Tracks that lead to the same place are no versions to choose between.
fn tracks(service: &Service, check: &mut Reader) {
    let tracks = &service.tracks.0;
    for (index, (name, track)) in tracks.iter().enumerate() {
        let earlier = tracks[..index].iter().find_map(|(other, earlier)| {
            let mut shared = track.endpoints.iter().filter(|endpoint| {
                earlier.endpoints.iter().any(|known| {
                    known.port == endpoint.port && known.host.eq_ignore_ascii_case(&endpoint.host)
                })
            });
            shared.next().map(|endpoint| (other, endpoint))
        });
        if let Some((other, endpoint)) = earlier {
            let message = format!(
                "{}:{} is an endpoint of `{}` too, so the split decides nothing there; name the \
                 endpoints of this version",
                endpoint.host, endpoint.port, other.value
            );
            check.below(&name.value, |check| {
                check.below("endpoints", |check| check.fault(endpoint.place, message));
            });
        }
    }
}

fn rule(service: &Service, index: usize, rule: &At<Rule>, check: &mut Reader) {
    for one in &rule.r#match.0 {
        check.below("match", |check| one_match(service, one, check));
    }
    let earlier =
        service.rules[..index].iter().position(|earlier| takes_all(earlier, rule, service));
    if let Some(earlier) = earlier {
        let message = format!(
            "is never reached: rules[{earlier}] takes every request that it fits; move it up, or \
             remove it"
        );
        check.fault(rule.place, message);
    }
    let prefix = rule.rewrite.as_ref().and_then(|rewrite| rewrite.prefix.as_ref());
    if let Some(prefix) = prefix {
        let rewritten = path::configured(prefix);
        let meets = |one: &At<Match>| match &one.path {
            Some(TextTest::Plain(text) | TextTest::Exact(text)) => {
                let tested = path::configured(text);
                path::has_prefix(&tested, &rewritten) || path::has_prefix(&rewritten, &tested)
            }
            _ => true,
        };
        if !rule.r#match.0.iter().any(meets) {
            let message = format!("`{}` begins no path that the rule fits", prefix.value);
            check.below("rewrite.prefix", |check| check.fault(prefix.place, message));
        }
    }
}

fn one_match(service: &Service, one: &At<Match>, check: &mut Reader) {
    let Some(test) = &one.path else { return };
    let outside = || {
        let own: Vec<&str> = service.paths.iter().map(|path| path.value.as_str()).collect();
        let own = own.join(", ");
        let is_outside = !service.paths.iter().any(|base| paths::may_meet(test, base));
        is_outside.then(|| format!("fits no request, since the service has those below {own} only"))
    };
    if let Some(message) = paths::remark(test, service).or_else(outside) {
        check.below("path", |check| check.fault(one.place, message));
    }
}

/// Whether every request that `later` fits is taken by `earlier` before.
fn takes_all(earlier: &Rule, later: &Rule, service: &Service) -> bool {
    let is_within = |net| earlier.from.iter().any(|outer: &ipnet::IpNet| outer.contains(net));
    let is_for =
        earlier.from.is_empty() || (!later.from.is_empty() && later.from.iter().all(is_within));
    let covered =
        |one: &At<Match>| earlier.r#match.0.iter().any(|outer| covers(outer, one, service));
    is_for && later.r#match.0.iter().all(covered)
}

/// Whether everything that `inner` fits is fitted by `outer`.
fn covers(outer: &Match, inner: &Match, service: &Service) -> bool {
    let methods = outer.method.0.is_empty()
        || (!inner.method.0.is_empty()
            && inner
                .method
                .0
                .iter()
                .all(|one| outer.method.0.iter().any(|other| other.value == one.value)));
    let sources = outer.source.0.is_empty()
        || (!inner.source.0.is_empty()
            && inner.source.0.iter().all(|net| outer.source.0.iter().any(|one| one.contains(net))));
    let not_sources =
        outer.not_source.0.iter().all(|net| inner.not_source.0.iter().any(|one| one.contains(net)));
    let paths = outer.path.as_ref().is_none_or(|test| {
        let is_everywhere = || {
            service
                .paths
                .iter()
                .all(|base| paths::covers(test, &TextTest::Plain(base.value.clone())))
        };
        inner.path.as_ref().is_some_and(|inner| paths::covers(test, inner)) || is_everywhere()
    });
    methods
        && sources
        && not_sources
        && paths
        && named(&outer.headers, &inner.headers)
        && named(&outer.cookies, &inner.cookies)
        && named(&outer.query, &inner.query)
}

/// Whether each test of `outer` is one of `inner` too.
fn named(outer: &Named<TextTest>, inner: &Named<TextTest>) -> bool {
    outer.0.iter().all(|(name, test)| {
        inner.0.iter().any(|(other, known)| {
            let is_any = *test == TextTest::Present && !matches!(known, TextTest::Not(_));
            other.value == name.value && (test == known || is_any)
        })
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn said(more: &str) -> Vec<String> {
        let text = format!(
            "listeners: [{{ address: 127.0.0.1:1 }}]\nservices:\n  - name: shop\n    tracks:\n      \
             stable: {{ endpoints: [10.0.0.1:80] }}\n      canary: {{ endpoints: [10.0.0.2:80] }}\n    \
             weights: {{ stable: 95, canary: 5 }}\n{more}"
        );
        let config = crate::config::parse(Path::new("a.yaml"), &text).unwrap();
        let of = |fault: &Fault| format!("{}: {}", fault.field, fault.message);
        warnings(&config).iter().map(of).collect()
    }

    #[test]
    fn what_can_never_match_is_said() {
        for (more, expected) in [
            ("    paths: ['/api/*']\n", "paths[0]: `/api/*` is compared star and all"),
            (
                "    paths: ['/api(/|$)(.*)']\n",
                "paths[0]: `/api(/|$)(.*)` is no regular expression",
            ),
            ("    paths: ['/a/../b']\n", "paths[0]: `/a/../b` is compared as /b; write that"),
            ("    paths: ['//x']\n", "paths[0]: `//x` is compared as /x; write that"),
            ("    paths: [/a%2fb]\n", "paths[0]: `/a%2fb` has an escaped slash"),
            ("    hosts: [api.example.com.]\n", "hosts[0]: `api.example.com.` is compared without"),
            (
                "    paths: [/api]\n    rules: [{ match: { path: /other }, track: canary }]\n",
                "rules[0].match.path: fits no request, since the service has those below /api only",
            ),
            (
                "    rules: [{ match: { path: '/a?b' }, track: canary }]\n",
                "rules[0].match.path: `/a?b` fits no path: `?` begins the query",
            ),
            (
                "    rules: [{ match: { path: { exact: '/a;b' } }, track: canary }]\n",
                "rules[0].match.path: `/a;b` is compared as /a; write that",
            ),
            (
                "    rules: [{ match: { path: { regex: '/caf%c3%a9' } }, track: canary }]\n",
                "rules[0].match.path: `/caf%c3%a9` fits no path",
            ),
            (
                "    rules: [{ match: { path: { regex: 'api/.*' } }, track: canary }]\n",
                "rules[0].match.path: `api/.*` fits no path",
            ),
            (
                "    rules: [{ match: { path: /a }, rewrite: { prefix: /b, to: /c } }]\n",
                "rules[0].rewrite.prefix: `/b` begins no path that the rule fits",
            ),
        ] {
            let said = said(more);
            let expected = format!("services[0].{expected}");
            assert!(said.len() == 1 && said[0].starts_with(&expected), "{more} {said:?}");
        }
    }

    #[test]
    fn rules_behind_those_that_take_all_are_said() {
        for (first, second, is_dead) in [
            ("match: { path: / }", "match: { headers: { canary: x } }", true),
            ("match: { path: /a }", "match: { path: /a/b }", true),
            ("match: { path: /a }", "match: { path: { prefix: /a/b } }", true),
            ("match: { path: /a }", "match: { path: /ab }", false),
            ("match: { path: /a/b }", "match: { path: /a }", false),
            ("match: { path: /a, method: GET }", "match: { path: /a }", false),
            ("match: { path: /a }", "match: { path: /a, method: GET }", true),
            ("match: [{ path: /a }, { path: /b }]", "match: [{ path: /b/x }, { path: /a }]", true),
            ("match: { path: /a }, from: [10.0.0.0/8]", "match: { path: /a }", false),
            (
                "match: { path: /a }, from: [10.0.0.0/8]",
                "match: { path: /a }, from: [10.1.0.0/16]",
                true,
            ),
            ("match: { headers: { a: { present: true } } }", "match: { headers: { a: b } }", true),
            ("match: { headers: { a: b } }", "match: { headers: { a: c } }", false),
            ("match: { not_source: 10.0.0.0/8 }", "match: { path: /a }", false),
            (
                "match: { not_source: 10.1.0.0/16 }",
                "match: { not_source: 10.0.0.0/8, path: /a }",
                true,
            ),
        ] {
            let said = said(&format!(
                "    rules: [{{ {first}, track: stable }}, {{ {second}, track: canary }}]\n"
            ));
            let is_said =
                said.iter().any(|one| one.contains("rules[1]: is never reached: rules[0]"));
            assert_eq!(is_said, is_dead, "{first} {second} {said:?}");
        }
    }

    #[test]
    fn what_is_alive_has_no_word() {
        for more in [
            "",
            "    paths: [/api/, /caf%C3%A9, /Users('x')/$metadata, /v1.2, '/@me']\n",
            "    rules: [{ match: { path: { regex: '/api/v[0-9]+/.*' } }, track: canary }]\n",
            "    rules: [{ match: { path: { prefix: /. } }, track: canary }]\n",
            "    ambiguous_paths: allow\n    rules: [{ match: { path: /a%2Fb }, track: canary }]\n",
        ] {
            assert_eq!(said(more), Vec::<String>::new(), "{more}");
        }
    }

    #[test]
    fn tracks_at_one_endpoint_are_said() {
        let text = "listeners: [{ address: 127.0.0.1:1 }]\nservices:\n  - name: shop\n    tracks:\n      \
            stable: { endpoints: [a:1, b:2] }\n      canary: { endpoints: [c:1, B:2] }\n    \
            weights: { stable: 95, canary: 5 }\n";
        let config = crate::config::parse(Path::new("a.yaml"), text).unwrap();
        let warnings = warnings(&config);
        assert_eq!(warnings.len(), 1);
        assert_eq!(warnings[0].field, "services[0].tracks.canary.endpoints");
    }
}
