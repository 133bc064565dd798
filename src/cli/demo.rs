//! `splitway demo`: two servers, a load and the gateway between, through a whole rollout.
//!
//! The gateway is the real one, with a plan that is fast. Its state is kept in memory, so that the
//! rollout starts by `resume`, as the demo says it does.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::Value as Json;
use tokio::sync::oneshot;

use crate::app::{self, Addresses};

use super::client::Client;
use super::demo_parts::{Behaviour, Seen, send, serve_track};
use super::simulate::{factor, share};
use super::{DONE, FAILED, complain, print, runtime};

/// Connections that share the load: enough that a canary five times slower keeps the pace.
const CLIENTS: u32 = 64;
/// After this long the demo has shown what it can.
const SECONDS_MAX: u64 = 600;

/// Show a whole rollout in about a minute; with a fault, a rollback.
#[derive(Debug, Args)]
pub struct Demo {
    /// Requests a second
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    rps: u32,
    /// Least seconds per stage
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: u64,
    /// The canary's share of errors, like 20%
    #[arg(long, default_value = "0.1%", value_name = "SHARE", value_parser = share)]
    canary_errors: f64,
    /// How much slower the canary is, like x3
    #[arg(long, default_value = "x1", value_name = "FACTOR", value_parser = factor)]
    canary_latency: f64,
    /// Go on serving when the rollout has ended, until Ctrl-C
    #[arg(long)]
    stay: bool,
}

impl Demo {
    /// Runs the command and returns its exit code.
    #[must_use]
    pub fn run(self) -> u8 {
        let result = runtime().map_err(anyhow::Error::from).and_then(|runtime| {
            runtime.block_on(async {
                tokio::select! {
                    result = self.show() => result,
                    () = app::stop_signal() => Ok(()),
                }
            })
        });
        match result {
            Ok(()) => DONE,
            Err(error) => {
                complain(&format!("splitway: {error:#}"));
                FAILED
            }
        }
    }

    async fn show(&self) -> anyhow::Result<()> {
        let folder = Folder::new()?;
        let file = folder.0.join("splitway.yaml");
        let good = Behaviour { errors: 0.001, slower: 1.0 };
        let tested = Behaviour { errors: self.canary_errors, slower: self.canary_latency };
        let stable = serve_track("stable", good).await?;
        let canary = serve_track("canary", tested).await?;
        std::fs::write(&file, self.config(stable, canary))?;
        let gateway = Gateway::start(&file).await?;
        let Addresses { listeners, admin } = &gateway.addresses;
        let proxy = listeners[0];
        print(&format!(
            "stable  http://{stable}   0.1 % errors\ncanary  http://{canary}   {} % errors, x{} \
             latency\ngateway http://{proxy}   (try: curl -H 'canary: true' http://{proxy}/)\n\
             page    http://{admin}/   (try: splitway explain --admin {admin})\nconfig  {}\n\n",
            self.canary_errors * 100.0,
            self.canary_latency,
            file.display()
        ));
        let seen = Arc::<Seen>::default();
        for _ in 0..CLIENTS {
            tokio::spawn(send(proxy, f64::from(self.rps) / f64::from(CLIENTS), Arc::clone(&seen)));
        }
        let status = self.follow(Client::at(&admin.to_string()), &seen).await?;
        let client = Client::at(&admin.to_string());
        let history = ask(client, "/api/v1/services/demo/history", None).await?;
        let list = super::shown(&history)["history"].as_array().cloned().unwrap_or_default();
        print(&format!("\n{}", list.iter().map(super::history::line).collect::<String>()));
        print(&cost(&status, seen.read()));
        if self.stay {
            print(&format!("The page stays at http://{admin}/ until Ctrl-C.\n"));
            std::future::pending::<()>().await;
        }
        gateway.stop().await
    }

    /// Starts the rollout and shows every second of it until it ends.
    async fn follow(&self, client: Client, seen: &Seen) -> anyhow::Result<Json> {
        let mut pace = tokio::time::interval(Duration::from_secs(1));
        let mut before = seen.read();
        let mut has_resumed = false;
        for _ in 0..SECONDS_MAX {
            pace.tick().await;
            let status = ask(client.clone(), "/api/v1/services/demo", None).await?;
            let rollout = status["rollout"].clone();
            if rollout["phase"] == "paused" && !has_resumed {
                has_resumed = true;
                print("resume: the state is in memory, so a person starts the rollout\n");
                ask(client.clone(), "/api/v1/services/demo/resume", Some("demo")).await?;
                continue;
            }
            let now = seen.read();
            let passed: [u64; 3] = std::array::from_fn(|index| now[index] - before[index]);
            before = now;
            print(&line(&rollout, passed));
            if matches!(rollout["phase"].as_str(), Some("promoted" | "rolled_back")) {
                return Ok(rollout);
            }
        }
        anyhow::bail!("the rollout has not ended within {SECONDS_MAX} s; more --rps ends it sooner")
    }

    fn config(&self, stable: SocketAddr, canary: SocketAddr) -> String {
        let seconds = self.seconds;
        format!(
            "listeners: [{{ address: 127.0.0.1:0 }}]\n\
             admin: {{ address: 127.0.0.1:0 }}\n\
             log: {{ level: warn }}\n\
             state: memory\n\
             services:\n\
             \x20 - name: demo\n\
             \x20   tracks:\n\
             \x20     stable: {{ version: v1.0.0, endpoints: [\"{stable}\"] }}\n\
             \x20     canary: {{ version: v2.0.0, endpoints: [\"{canary}\"] }}\n\
             \x20   rules:\n\
             \x20     - match: {{ headers: {{ canary: \"true\" }} }}\n\
             \x20       track: canary\n\
             \x20   rollout:\n\
             \x20     stages: [5, 10, 25, 50, 75, 100]\n\
             \x20     min: {seconds}s            # a minute in production\n\
             \x20     judge: {{ warmup: 3s }}    # half a minute in production\n"
        )
    }
}

/// One request to the admin API, beside the runtime's thread. `actor` makes it a command.
async fn ask(client: Client, path: &str, actor: Option<&str>) -> anyhow::Result<Json> {
    let (path, body) = (path.to_owned(), actor.map(|actor| serde_json::json!({ "actor": actor })));
    let asked = tokio::task::spawn_blocking(move || match body {
        Some(body) => client.post(&path, &body),
        None => client.get(&path),
    });
    asked.await?.map_err(anyhow::Error::msg)
}

fn line(rollout: &Json, [stable, canary, failed]: [u64; 3]) -> String {
    let explain = rollout["explain"].as_str().unwrap_or_default();
    let weight = rollout["weight"].as_f64().unwrap_or(0.0);
    format!(
        "{weight:>5} %  stable {stable:>5}  canary {canary:>5}  failed {failed:>3}  {explain}\n"
    )
}

/// What happened, and what it cost the users.
fn cost(rollout: &Json, [stable, canary, failed]: [u64; 3]) -> String {
    let run = &rollout["run_evidence"];
    let (requests, errors) = (&run["canary"]["requests"], &run["canary"]["errors"]);
    let mut text = String::new();
    let version = rollout["version"].as_str().unwrap_or_default();
    let total = stable + canary + failed;
    let _ = match rollout["phase"].as_str() {
        Some("rolled_back") => writeln!(
            text,
            "\n{version} was rolled back: it had answered {requests} judged requests, {errors} of \
             them with a failure. Users saw {failed} failures in {total} requests, stable's own \
             included."
        ),
        _ => writeln!(
            text,
            "\n{version} was promoted on proof. Users saw {failed} failures in {total} requests, \
             which is what both versions bring by themselves."
        ),
    };
    text
}

/// A folder that goes with the demo.
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("splitway-demo-{}", std::process::id()));
        std::fs::create_dir_all(&folder).context("no folder for the demo's configuration")?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is a few hundred bytes in the temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The gateway on a thread of its own, as it runs in production.
struct Gateway {
    addresses: Addresses,
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<Result<(), String>>,
}

impl Gateway {
    async fn start(file: &Path) -> anyhow::Result<Self> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (started, starting) = oneshot::channel();
        let (ending, mut ended) = oneshot::channel();
        let file = file.to_owned();
        std::thread::Builder::new().name("gateway".into()).spawn(move || {
            let result = runtime().map_err(|error| error.to_string()).and_then(|runtime| {
                let stop = async { drop(stopped.await) };
                let started = |addresses: &Addresses| drop(started.send(addresses.clone()));
                let running = app::run(&file, true, stop, started);
                runtime.block_on(running).map_err(|error| error.to_string())
            });
            // A demo that was interrupted no longer listens.
            let _ = ending.send(result);
        })?;
        tokio::select! {
            Ok(addresses) = starting => Ok(Self { addresses, stop, ended }),
            ended = &mut ended => match ended {
                Ok(Err(error)) => Err(anyhow::anyhow!(error)),
                _ => Err(anyhow::anyhow!("the gateway ended at once")),
            },
        }
    }

    async fn stop(self) -> anyhow::Result<()> {
        // It may have ended by itself, which its result tells.
        let _ = self.stop.send(());
        self.ended.await?.map_err(anyhow::Error::msg)
    }
}
