//! The plan that `simulate` and `replay` work under.

use std::path::PathBuf;

use clap::Args;

use crate::config;
use crate::rollout::Plan;

/// The plan of a service in a configuration, or the default one.
#[derive(Debug, Args)]
pub struct PlanChoice {
    /// A configuration with a rollout; omitted: 5, 10, 25, 50, 75, 100 % and every default
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The service; may be omitted where only one has a rollout
    #[arg(long, value_name = "NAME", requires = "config")]
    service: Option<String>,
}

/// The stages of the default plan, in percent.
const STAGES: [u16; 6] = [5, 10, 25, 50, 75, 100];

impl PlanChoice {
    /// The plan.
    ///
    /// # Errors
    /// In words: a configuration with faults, or without such a rollout.
    pub fn plan(&self) -> Result<Plan, String> {
        self.chosen().map(|(plan, _)| plan)
    }

    /// The plan, and how its canary's latency cut follows from stable's.
    ///
    /// # Errors
    /// In words: a configuration with faults, or without such a rollout.
    pub fn chosen(&self) -> Result<(Plan, (f64, u64)), String> {
        let Some(file) = &self.config else {
            return Ok((Plan::through(&STAGES), (1.5, 5_000_000)));
        };
        let loaded = config::load(file).map_err(|faults| faults.to_string())?;
        let name = file.display();
        let with_rollout: Vec<_> = loaded
            .config
            .services
            .iter()
            .filter_map(|service| Some((service.name.as_str(), service.rollout.as_ref()?)))
            .collect();
        let found: Vec<_> = with_rollout
            .iter()
            .filter(|(service, _)| self.service.as_deref().is_none_or(|wanted| wanted == *service))
            .collect();
        match found[..] {
            [(_, rollout)] => {
                let cut = (rollout.limits.p99_ratio.0, rollout.evidence.latency_floor.ns());
                Ok((config::plan::plan(rollout, false), cut))
            }
            [] => Err(format!("{name}: no such service has a rollout")),
            _ => {
                let names: Vec<&str> = found.iter().map(|(service, _)| *service).collect();
                Err(format!(
                    "{name}: several rollouts; choose one by --service: {}",
                    names.join(", ")
                ))
            }
        }
    }
}
