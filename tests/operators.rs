//! Who owns the weight: commands, edits of the file, crashes, the journal.

use std::time::{Duration, Instant};

use serde_json::Value as Json;

use crate::support::{Gateway, Load, Tested};

const PLAN: &str = "stages: [5, 25, 50, 100]\nmin: 10m\njudge: { warmup: 1s }";

/// A service's file: versions, weights or none, and the rollout's keys or none.
fn file(
    stable: (&str, &Tested),
    canary: Option<(&str, &Tested)>,
    weight: Option<f64>,
    rollout: Option<&str>,
) -> String {
    let track = |(version, tested): (&str, &Tested)| {
        format!("{{ version: {version}, endpoints: ['{}'] }}", tested.address())
    };
    let mut text =
        format!("services:\n  - name: api\n    tracks:\n      stable: {}\n", track(stable));
    if let Some(canary) = canary {
        text += &format!("      canary: {}\n", track(canary));
    }
    if let Some(weight) = weight {
        text += &format!("    weights: {{ stable: {}, canary: {weight} }}\n", 100.0 - weight);
    }
    if let Some(rollout) = rollout {
        text += &format!("    rollout:\n      {}\n", rollout.replace('\n', "\n      "));
    }
    text
}

fn tracks() -> (Tested, Tested) {
    (Tested::new("stable"), Tested::new("canary"))
}

fn plain(stable: &Tested, canary: &Tested) -> String {
    file(("v1", stable), Some(("v2", canary)), None, Some(PLAN))
}

fn command(gateway: &Gateway, word: &str, body: &str) -> (u16, Json) {
    gateway.command(&format!("/api/v1/services/api/{word}"), body)
}

fn last(gateway: &Gateway) -> Json {
    let answer = gateway.admin_get("/api/v1/services/api/history");
    let history: Json = serde_json::from_slice(&answer.body).unwrap();
    history["history"].as_array().unwrap().last().unwrap().clone()
}

/// Edits the file and waits until `test` holds.
fn edit(gateway: &Gateway, text: &str, test: impl Fn(&Json) -> bool) -> Json {
    gateway.edit(text);
    gateway.await_rollout("api", test)
}

#[test]
fn every_command_works_and_is_journalled_with_its_actor() {
    let (stable, canary) = tracks();
    let gateway = Gateway::start(&plain(&stable, &canary));
    gateway.await_phase("progressing");
    for (word, body, phase, weight) in [
        ("pause", "", "paused", 5.0),
        ("resume", "", "progressing", 5.0),
        ("weight", r#"{"weight":17.5}"#, "paused", 17.5),
        ("resume", "", "progressing", 17.5),
        ("promote", "", "progressing", 25.0),
        ("weight", r#"{"weight":2}"#, "paused", 2.0),
        ("promote", "", "progressing", 5.0),
        ("promote", r#"{"full":true}"#, "promoted", 100.0),
        ("rollback", "", "rolled_back", 0.0),
        ("retry", "", "waiting", 0.0),
        ("abort", r#"{"actor":"eve"}"#, "rolled_back", 0.0),
    ] {
        let (status, done) = command(&gateway, word, body);
        assert_eq!(status, 200, "{word}: {done}");
        assert_eq!((&done["phase"], &done["weight"]), (&phase.into(), &weight.into()), "{word}");
        assert_eq!(gateway.metric("splitway_weight_ratio", &["canary"]), weight / 100.0);
        let last = last(&gateway);
        let actor = if word == "abort" { "peer:127.0.0.1 (says eve)" } else { "peer:127.0.0.1" };
        assert_eq!((&last["cause"], &last["actor"]), (&"operator".into(), &actor.into()));
    }
    assert_eq!(last(&gateway)["attempt"], 2);
    for (word, body, status, says) in [
        ("resume", "", 409, "only a paused rollout resumes"),
        ("pause", "", 409, "it is rolled_back"),
        ("promote", "", 409, "`retry` starts it again"),
        ("weight", r#"{"weight":5}"#, 409, "`retry` starts it again"),
        ("weight", r#"{"weight":500}"#, 400, "from 0 to 100"),
        ("explode", "", 404, "is no command"),
    ] {
        let (found, problem) = command(&gateway, word, body);
        assert_eq!(found, status, "{word}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{word}: {problem}");
    }
}

#[test]
fn the_command_line_does_what_the_api_does() {
    let (stable, canary) = tracks();
    let gateway = Gateway::start(&plain(&stable, &canary));
    gateway.await_phase("progressing");
    let admin = gateway.admin.to_string();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_splitway"));
        let output = command.args(arguments).args(["--admin", &admin]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code().unwrap(), said + &String::from_utf8_lossy(&output.stderr))
    };
    for (arguments, code, says) in [
        (&["set-weight", "12.5"][..], 0, "api: v2 is paused at 12.5 %"),
        (&["set-weight", "api", "20%"], 0, "api: v2 is paused at 20 %"),
        (&["set-weight", "none"], 2, "is not a number"),
        (&["resume", "api", "--actor", "ann"], 0, "api: v2 is progressing at 20 %"),
        (&["pause"], 0, "api: v2 is paused at 20 %"),
        (&["promote"], 0, "api: v2 is progressing at 25 %"),
        (&["explain"], 0, "api: hold at 25 %"),
        (&["watch", "--once"], 0, "api  v1 → v2  progressing at 25 %"),
        (&["watch", "--once", "nobody"], 0, "no such service"),
        (&["get"], 0, "api: hold at 25 %"),
        (&["list"], 0, "api      canary  v2       25 %"),
        (&["history"], 0, "peer:127.0.0.1 (says ann): resume by peer:127.0.0.1 (says ann)"),
        (&["status", "--wait", "--timeout", "1s"], 3, "hold at 25 %"),
        (&["promote", "--full"], 0, "api: v2 is promoted at 100 %"),
        (&["status", "--wait"], 0, "promoted at 100 %"),
        (&["abort"], 0, "api: v2 is rolled_back at 0 %"),
        (&["status", "--wait"], 1, "rolled back"),
        (&["retry"], 0, "api: v2 is waiting at 0 %"),
        (&["rollback", "other"], 1, "no service is called `other`"),
    ] {
        let (found, said) = run(arguments);
        assert!(found == code && said.contains(says), "{arguments:?}: {found} {said}");
    }
}

#[test]
fn promoting_against_the_evidence_needs_force() {
    let (stable, canary) = tracks();
    let hold = format!("{PLAN}\non_failure: hold");
    let text = file(("v1", &stable), Some(("v2", &canary)), None, Some(&hold));
    let gateway = Gateway::start(&text);
    canary.set_errors(500);
    let load = Load::start(gateway.address, 400, |_| String::new());
    let paused = gateway.await_phase("paused");
    assert!(paused["e"].as_f64().unwrap() >= 100.0, "held for a person, not rolled back");
    drop(load);
    let (status, problem) = command(&gateway, "promote", "");
    assert_eq!(status, 409);
    assert!(problem["detail"].as_str().unwrap().contains("use force"), "{problem}");
    let (status, done) = command(&gateway, "promote", r#"{"force":true}"#);
    assert_eq!((status, &done["weight"]), (200, &25.0.into()));
}

#[test]
fn an_edit_that_changes_nothing_of_the_rollout_keeps_weight_and_evidence() {
    let (stable, canary) = tracks();
    let gateway = Gateway::start(&plain(&stable, &canary));
    let _load = Load::start(gateway.address, 400, |_| String::new());
    let judged = |rollout: &Json| rollout["run_evidence"]["stable"]["requests"].as_u64().unwrap();
    gateway.await_rollout("api", |rollout| judged(rollout) > 400);
    command(&gateway, "promote", "");
    let before = judged(&gateway.rollout("api"));
    let text = plain(&stable, &canary) + "    timeouts: { connect: 3s }\n";
    let after = edit(&gateway, &text, |_| true);
    assert_eq!(after["weight"], 25.0);
    assert!(judged(&after) >= before);
    // The judge's figures wait for the next rollout.
    let seen = gateway.log_len();
    gateway.edit(&text.replace("warmup: 1s", "warmup: 2s"));
    gateway.await_line(seen, "they apply from the next rollout");
    assert_eq!(gateway.rollout("api")["weight"], 25.0);
}

#[test]
fn weights_in_the_file_pause_and_the_judge_never_undoes_the_operators_word() {
    let (stable, canary) = tracks();
    let fast =
        "stages: [5, 25, 50, 100]\nmin: 1s\njudge: { warmup: 1s, error_budget: 5, slow_budget: 9 }";
    let text = |weight| file(("v1", &stable), Some(("v2", &canary)), weight, Some(fast));
    let gateway = Gateway::start(&text(None));
    let _load = Load::start(gateway.address, 800, |_| String::new());
    // The judge advances at any moment now; whenever the edit comes, its weight stays.
    gateway.await_rollout("api", |rollout| rollout["weight"].as_f64().unwrap() >= 5.0);
    let set = edit(&gateway, &text(Some(7.0)), |rollout| rollout["phase"] == "paused");
    assert_eq!(set["weight"], 7.0);
    let judged = |rollout: &Json| rollout["run_evidence"]["stable"]["requests"].as_u64().unwrap();
    let from = judged(&set);
    let later = gateway.await_rollout("api", |rollout| judged(rollout) > from + 2_000);
    assert_eq!((&later["phase"], &later["weight"]), (&"paused".into(), &7.0.into()));
    // Resume aims at the next greater stage.
    command(&gateway, "resume", "");
    gateway.await_rollout("api", |rollout| rollout["weight"].as_f64().unwrap() >= 25.0);
}

#[test]
fn a_rolled_back_version_stays_at_0_until_it_is_retried_whatever_the_file_says() {
    let (stable, canary) = tracks();
    let with =
        |version, weight| file(("v1", &stable), Some((version, &canary)), weight, Some(PLAN));
    let gateway = Gateway::start(&with("v2", None));
    gateway.await_phase("progressing");
    command(&gateway, "rollback", "");
    let seen = gateway.log_len();
    gateway.edit(&with("v2", Some(10.0)));
    gateway.await_line(seen, "`weights` is ignored: v2 is rolled_back");
    let fresh = edit(&gateway, &with("v3", Some(10.0)), |rollout| rollout["version"] == "v3");
    assert!(["waiting", "progressing"].contains(&fresh["phase"].as_str().unwrap()), "{fresh}");
    gateway.await_phase("progressing");
    let again = edit(&gateway, &with("v2", Some(10.0)), |rollout| rollout["version"] == "v2");
    assert_eq!((&again["phase"], &again["weight"]), (&"rolled_back".into(), &0.0.into()));
    // Without its rollout the file owns the weights, but not this version's.
    let owned = |version| file(("v1", &stable), Some((version, &canary)), Some(10.0), None);
    gateway.edit(&owned("v2"));
    gateway.await_metric("splitway_weight_ratio", &["canary"], |ratio| ratio == 0.0);
    gateway.edit(&owned("v4"));
    gateway.await_metric("splitway_weight_ratio", &["canary"], |ratio| ratio == 0.1);
    // A rollout that is added takes the live weight over.
    let added = edit(&gateway, &with("v4", Some(10.0)), |rollout| rollout["version"] == "v4");
    assert_eq!(added["weight"], 10.0);
    gateway.edit(&with("v2", Some(10.0)));
    gateway.await_phase("rolled_back");
    assert_eq!(command(&gateway, "retry", "").1["phase"], "waiting");
    gateway.await_phase("progressing");
}

#[test]
fn a_promoted_version_must_become_stable_before_anything_else() {
    let (stable, canary) = tracks();
    let third = Tested::new("third");
    let plan = Some(PLAN);
    let gateway = Gateway::start(&plain(&stable, &canary));
    gateway.await_phase("progressing");
    command(&gateway, "promote", r#"{"full":true}"#);
    for refused in [
        file(("v1", &stable), Some(("v3", &third)), None, plan),
        file(("v1", &stable), None, None, plan),
    ] {
        let seen = gateway.log_len();
        gateway.replace(&refused);
        let (_, line) = gateway.await_line(seen, "reload refused");
        assert!(line.contains("make v2 stable first"), "{line}");
        assert_eq!(gateway.connect().get("/", "").track(), "canary");
    }
    // Stable runs v2 now, and takes over as soon as it is ready.
    let both = file(("v2", &third), Some(("v2", &canary)), None, plan);
    let idle = edit(&gateway, &both, |rollout| rollout["phase"] == "idle");
    assert_eq!(idle["weight"], 0.0);
    assert_eq!(gateway.connect().get("/", "").track(), "third");
    let next = file(("v2", &third), Some(("v3", &stable)), None, plan);
    edit(&gateway, &next, |rollout| {
        rollout["version"] == "v3" && rollout["phase"] == "progressing"
    });
}

#[test]
fn versions_that_move_under_a_rollout_supersede_revert_or_finish_it() {
    let (stable, canary) = tracks();
    let other = Tested::new("other");
    let plan = Some(PLAN);
    let gateway = Gateway::start(&plain(&stable, &canary));
    gateway.await_phase("progressing");
    // Another canary version: the old run is superseded.
    let text = file(("v1", &stable), Some(("v3", &canary)), Some(50.0), plan);
    edit(&gateway, &text, |rollout| {
        rollout["version"] == "v3" && rollout["phase"] == "progressing"
    });
    assert_eq!(gateway.rollout("api")["weight"], 5.0, "weights are ignored");
    // Stable changes under it: weight and pots stay.
    let text = file(("v1.1", &other), Some(("v3", &canary)), Some(50.0), plan);
    let kept = edit(&gateway, &text, |rollout| rollout["stable_version"] == "v1.1");
    assert_eq!((&kept["phase"], &kept["weight"]), (&"progressing".into(), &5.0.into()));
    // The canary gets stable's version: reverted.
    let text = file(("v1.1", &other), Some(("v1.1", &canary)), Some(50.0), plan);
    let reverted = edit(&gateway, &text, |rollout| rollout["phase"] == "idle");
    assert_eq!(reverted["weight"], 0.0);
    assert!(reverted["explain"].as_str().unwrap().contains("reverted"), "{reverted}");
    // A new one, which becomes stable while it progresses: promoted by the file.
    let text = file(("v1.1", &other), Some(("v4", &canary)), None, plan);
    edit(&gateway, &text, |rollout| rollout["phase"] == "progressing");
    let text = file(("v4", &stable), Some(("v4", &canary)), None, plan);
    edit(&gateway, &text, |rollout| rollout["phase"] == "promoted");
    assert_eq!(last(&gateway)["cause"], "file");
    assert_eq!(gateway.connect().get("/", "").track(), "stable");
    // The canary goes, and a removed one leaves nothing.
    let text = file(("v4", &stable), Some(("v5", &canary)), None, plan);
    edit(&gateway, &text, |rollout| rollout["phase"] == "progressing");
    let gone =
        edit(&gateway, &file(("v4", &stable), None, None, plan), |one| one["phase"] == "idle");
    assert!(gone["explain"].as_str().unwrap().contains("removed"), "{gone}");
    for _ in 0..20 {
        assert_eq!(gateway.connect().get("/", "").track(), "stable");
    }
}

#[test]
fn stages_that_change_keep_the_weight_and_pause_if_all_are_above_it() {
    let (stable, canary) = tracks();
    let gateway = Gateway::start(&plain(&stable, &canary));
    gateway.await_phase("progressing");
    command(&gateway, "promote", "");
    let text = plain(&stable, &canary);
    let text = text.replace("[5, 25, 50, 100]", "[10, 20, 40, 100]");
    let kept =
        edit(&gateway, &text, |one| one["stages"] == serde_json::json!([10.0, 20.0, 40.0, 100.0]));
    assert_eq!((&kept["weight"], &kept["stage"]), (&25.0.into(), &2.into()));
    assert_eq!(kept["phase"], "progressing");
    let text = text.replace("[10, 20, 40, 100]", "[30, 100]");
    let paused = edit(&gateway, &text, |rollout| rollout["phase"] == "paused");
    assert_eq!(paused["weight"], 25.0);
}

#[test]
fn a_crash_in_mid_rollout_resumes_at_the_same_weight_and_evidence() {
    let (stable, canary) = tracks();
    let rules = "    rules: [{ match: { headers: { canary: 'true' } }, track: canary }]\n";
    let text = plain(&stable, &canary) + rules;
    let gateway = Gateway::start(&text);
    gateway.await_phase("progressing");
    let load = Load::start(gateway.address, 500, |_| String::new());
    command(&gateway, "promote", "");
    gateway.await_rollout("api", |rollout| {
        rollout["run_evidence"]["canary"]["requests"].as_u64().unwrap() > 300
    });
    drop(load);
    let judged = |rollout: &Json| rollout["run_evidence"]["canary"]["requests"].as_u64().unwrap();
    let before = gateway.rollout("api");
    let gateway = gateway.crash_and_restart(&text);
    let after = gateway.rollout("api");
    for key in ["phase", "weight", "version", "attempt", "stage"] {
        assert_eq!(after[key], before[key], "{key}");
    }
    assert!(judged(&after) >= judged(&before), "{after:#}");
    let (e, was) = (after["e"].as_f64().unwrap(), before["e"].as_f64().unwrap());
    assert!((e / was - 1.0).abs() < 0.2, "no fresh alpha: {e} after {was}");
    assert_eq!(gateway.metric("splitway_weight_ratio", &["canary"]), 0.25);
    // A line that was being written when the process died is cut off.
    let journal = gateway.folder().join("state/journal.jsonl");
    let file = std::fs::OpenOptions::new().write(true).open(&journal).unwrap();
    gateway.signal("STOP");
    file.set_len(file.metadata().unwrap().len() - 37).unwrap();
    let gateway = gateway.crash_and_restart(&text);
    gateway.await_line(0, "last line was torn");
    assert_eq!(gateway.rollout("api")["weight"], 25.0);
    // What it wrote is what `replay` reads.
    let text_of_journal = gateway.folder().join("state/journal.jsonl");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_splitway"))
        .args(["replay", text_of_journal.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).lines().count() > 5);
    // A version that was rolled back stays so, too.
    command(&gateway, "rollback", "");
    let gateway = gateway.crash_and_restart(&text);
    assert_eq!(gateway.rollout("api")["phase"], "rolled_back");
    let forced = gateway.connect().get("/", "canary: true\r\n");
    assert_eq!(forced.track(), "stable", "its rules lead to stable after a restart, too");
    // And a promoted one stays at 100 %, through the old file.
    command(&gateway, "retry", "");
    gateway.await_phase("progressing");
    command(&gateway, "promote", r#"{"full":true}"#);
    let gateway = gateway.crash_and_restart(&text);
    assert_eq!(gateway.rollout("api")["weight"], 100.0);
    assert_eq!(gateway.connect().get("/", "").track(), "canary");
}

#[test]
fn a_journal_that_cannot_be_written_lets_nothing_rise_and_says_so() {
    let (stable, canary) = tracks();
    let text = format!("state: {{ directory: /dev/null/state }}\n{}", plain(&stable, &canary));
    let gateway = Gateway::start(&text);
    gateway.await_rollout("api", |rollout| {
        rollout["explain"]
            .as_str()
            .unwrap()
            .contains("nothing rises: the journal cannot be written")
    });
    gateway.await_rollout("api", |rollout| {
        rollout["ready_endpoints"] == serde_json::json!({ "canary": 1, "stable": 1 })
    });
    let (status, problem) = command(&gateway, "promote", "");
    assert_eq!(status, 409);
    assert!(
        problem["detail"].as_str().unwrap().contains("the journal cannot be written"),
        "{problem}"
    );
    assert_eq!(gateway.metric("splitway_journal_writable", &[]), 0.0);
    assert_eq!(gateway.metric("splitway_weight_ratio", &["canary"]), 0.0);
    for _ in 0..20 {
        assert_eq!(gateway.connect().get("/", "").track(), "stable");
    }
}

#[test]
fn state_in_memory_starts_only_by_resume() {
    let (stable, canary) = tracks();
    let gateway = Gateway::start(&format!("state: memory\n{}", plain(&stable, &canary)));
    let paused = gateway.await_phase("paused");
    assert!(paused["explain"].as_str().unwrap().contains("starts only by `resume`"), "{paused}");
    command(&gateway, "resume", "");
    gateway.await_phase("progressing");
}

/// A disk that hangs when told to sync, by a library that is loaded ahead of the system's.
#[test]
fn a_hung_disk_stops_every_raise_and_no_rollback() {
    let (stable, canary) = tracks();
    // Libraries may not be loaded from memory everywhere.
    let folder = tempfile::tempdir().unwrap();
    let (source, library) = (folder.path().join("hang.c"), folder.path().join("hang.so"));
    let hangs = folder.path().join("hangs");
    // fdatasync waits for as long as the file named by HANG_FILE is there.
    let text = "#include <stdlib.h>\n#include <unistd.h>\n\
        int fdatasync(int fd) { (void)fd; const char *f = getenv(\"HANG_FILE\");\n\
        while (f && access(f, F_OK) == 0) usleep(10000); return 0; }\n";
    std::fs::write(&source, text).unwrap();
    let built = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status();
    assert!(built.unwrap().success(), "a C compiler links every Rust program here");
    let gateway = Gateway::start_in(
        crate::support::folder(),
        "workers: 2\n",
        &plain(&stable, &canary),
        &[("LD_PRELOAD", library.to_str().unwrap()), ("HANG_FILE", hangs.to_str().unwrap())],
    );
    gateway.await_phase("progressing");
    std::fs::write(&hangs, "").unwrap();
    let (status, problem) = command(&gateway, "promote", "");
    assert_eq!(status, 503, "{problem}");
    let waits = gateway.rollout("api");
    assert_eq!((&waits["weight"], &waits["raising_to"]), (&5.0.into(), &25.0.into()));
    assert!(waits["explain"].as_str().unwrap().contains("waits for the journal"), "{waits}");
    let load = Load::start(gateway.address, 800, |_| String::new());
    gateway.await_rollout("api", |rollout| {
        rollout["run_evidence"]["canary"]["requests"].as_u64().unwrap() > 40
    });
    let died = Instant::now();
    canary.set_errors(1_000);
    gateway.await_phase("rolled_back");
    assert!(died.elapsed() < Duration::from_secs(1), "{:?}", died.elapsed());
    drop(load);
    // The raise that waited is forgotten, also when the disk comes back.
    std::fs::remove_file(&hangs).unwrap();
    let (_, retried) = command(&gateway, "retry", "");
    assert_eq!(retried["phase"], "waiting");
    assert_eq!(gateway.await_phase("progressing")["weight"], 5.0);
}
