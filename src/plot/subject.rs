//! What charts are drawn from: profiles, budget plans, or measurements of speed.

use super::figure::Figure;
use super::options::ChartOptions;
use crate::budget::BudgetPlan;
use crate::error::{Error, Result};
use crate::eval::speed::Speed;
use crate::profile::Profile;

/// What a chart is drawn from; slices and vectors of any of them become it by themselves.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'s> {
    /// Measurements.
    Profiles(&'s [Profile]),
    /// Budgets.
    Plans(&'s [BudgetPlan]),
    /// Times and bytes.
    Speeds(&'s [Speed]),
}

/// Which kind of thing a chart is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectKind {
    /// Profile folders.
    Profiles,
    /// Plan files.
    Plans,
    /// Folders of `kvprof speed`.
    Speeds,
}

/// A chart's own function, by what it reads.
pub(super) enum Painter {
    /// Draws profiles.
    Profiles(fn(&[Profile], &ChartOptions, &str) -> Result<Figure>),
    /// Draws plans.
    Plans(fn(&[BudgetPlan], &ChartOptions, &str) -> Result<Figure>),
    /// Draws measurements of speed.
    Speeds(fn(&[Speed], &ChartOptions, &str) -> Result<Figure>),
}

impl Subject<'_> {
    /// Which of them it is.
    pub fn kind(self) -> SubjectKind {
        match self {
            Self::Profiles(_) => SubjectKind::Profiles,
            Self::Plans(_) => SubjectKind::Plans,
            Self::Speeds(_) => SubjectKind::Speeds,
        }
    }

    /// How many there are.
    pub fn len(self) -> usize {
        match self {
            Self::Profiles(profiles) => profiles.len(),
            Self::Plans(plans) => plans.len(),
            Self::Speeds(speeds) => speeds.len(),
        }
    }

    /// Whether there is nothing to draw.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl SubjectKind {
    /// The singular, which is also the option that names one on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Profiles => "profile",
            Self::Plans => "plan",
            Self::Speeds => "speed",
        }
    }
}

impl Painter {
    pub(super) fn takes(&self) -> SubjectKind {
        match self {
            Self::Profiles(_) => SubjectKind::Profiles,
            Self::Plans(_) => SubjectKind::Plans,
            Self::Speeds(_) => SubjectKind::Speeds,
        }
    }

    /// Draws what fits.
    ///
    /// Errors: [`Error::Invalid`] for nothing, and for things of another kind than the chart draws; the
    /// chart's own.
    pub(super) fn paint(
        &self,
        chart: &str,
        subject: Subject<'_>,
        options: &ChartOptions,
        record: &str,
    ) -> Result<Figure> {
        match (self, subject) {
            (Self::Profiles(draw), Subject::Profiles(all)) if !all.is_empty() => {
                draw(all, options, record)
            }
            (Self::Plans(draw), Subject::Plans(all)) if !all.is_empty() => {
                draw(all, options, record)
            }
            (Self::Speeds(draw), Subject::Speeds(all)) if !all.is_empty() => {
                draw(all, options, record)
            }
            _ => {
                let kind = self.takes().name();
                let bound = format!("this chart needs at least one; name it with --{kind}");
                Err(Error::invalid(
                    format!("number of {kind}s for {chart}"),
                    0,
                    bound,
                ))
            }
        }
    }
}

impl<'s> From<&'s [Profile]> for Subject<'s> {
    fn from(profiles: &'s [Profile]) -> Self {
        Self::Profiles(profiles)
    }
}

impl<'s> From<&'s Vec<Profile>> for Subject<'s> {
    fn from(profiles: &'s Vec<Profile>) -> Self {
        Self::Profiles(profiles)
    }
}

impl<'s, const N: usize> From<&'s [Profile; N]> for Subject<'s> {
    fn from(profiles: &'s [Profile; N]) -> Self {
        Self::Profiles(profiles)
    }
}

impl<'s> From<&'s [BudgetPlan]> for Subject<'s> {
    fn from(plans: &'s [BudgetPlan]) -> Self {
        Self::Plans(plans)
    }
}

impl<'s> From<&'s Vec<BudgetPlan>> for Subject<'s> {
    fn from(plans: &'s Vec<BudgetPlan>) -> Self {
        Self::Plans(plans)
    }
}

impl<'s> From<&'s [Speed]> for Subject<'s> {
    fn from(speeds: &'s [Speed]) -> Self {
        Self::Speeds(speeds)
    }
}

impl<'s> From<&'s Vec<Speed>> for Subject<'s> {
    fn from(speeds: &'s Vec<Speed>) -> Self {
        Self::Speeds(speeds)
    }
}
