//! What charts are drawn from: profiles, budget plans or measurements.

use super::figure::Figure;
use super::options::ChartOptions;
use crate::bench::Bench;
use crate::budget::BudgetPlan;
use crate::error::{Error, Result};
use crate::eval::Results;
use crate::eval::hit_rate::HitRates;
use crate::eval::speed::Speed;
use crate::profile::Profile;

/// What a chart is drawn from; slices and vectors of each become it by themselves.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'s> {
    /// Measurements.
    Profiles(&'s [Profile]),
    /// Budgets.
    Plans(&'s [BudgetPlan]),
    /// Evaluations.
    Results(&'s [Results]),
    /// Hit rates.
    HitRates(&'s [HitRates]),
    /// Times and bytes of decoding.
    Speeds(&'s [Speed]),
    /// What everything costs.
    Benches(&'s [Bench]),
}

/// Which kind of thing a chart is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectKind {
    /// Profile folders.
    Profiles,
    /// Plan files.
    Plans,
    /// Results folders.
    Results,
    /// Folders of hit rates.
    HitRates,
    /// Folders of `kvprof speed`.
    Speeds,
    /// Folders of `kvprof bench`.
    Benches,
}

/// A chart's own function, by what it reads.
pub(super) enum Painter {
    /// Draws profiles.
    Profiles(fn(&[Profile], &ChartOptions, &str) -> Result<Figure>),
    /// Draws plans.
    Plans(fn(&[BudgetPlan], &ChartOptions, &str) -> Result<Figure>),
    /// Draws results.
    Results(fn(&[Results], &ChartOptions, &str) -> Result<Figure>),
    /// Draws hit rates.
    HitRates(fn(&[HitRates], &ChartOptions, &str) -> Result<Figure>),
    /// Draws measurements of speed.
    Speeds(fn(&[Speed], &ChartOptions, &str) -> Result<Figure>),
    /// Draws runs of the bench.
    Benches(fn(&[Bench], &ChartOptions, &str) -> Result<Figure>),
}

impl Subject<'_> {
    /// Which of them it is.
    pub fn kind(self) -> SubjectKind {
        match self {
            Self::Profiles(_) => SubjectKind::Profiles,
            Self::Plans(_) => SubjectKind::Plans,
            Self::Results(_) => SubjectKind::Results,
            Self::HitRates(_) => SubjectKind::HitRates,
            Self::Speeds(_) => SubjectKind::Speeds,
            Self::Benches(_) => SubjectKind::Benches,
        }
    }

    /// How many there are.
    pub fn len(self) -> usize {
        match self {
            Self::Profiles(profiles) => profiles.len(),
            Self::Plans(plans) => plans.len(),
            Self::Results(results) => results.len(),
            Self::HitRates(rates) => rates.len(),
            Self::Speeds(speeds) => speeds.len(),
            Self::Benches(benches) => benches.len(),
        }
    }

    /// Whether there is nothing to draw.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

impl SubjectKind {
    /// The option that names one on the command line.
    pub fn option(self) -> &'static str {
        match self {
            Self::Profiles => "--profile",
            Self::Plans => "--plan",
            Self::Results => "--results",
            Self::HitRates => "--hitrate",
            Self::Speeds => "--speed",
            Self::Benches => "--bench",
        }
    }

    /// One of them in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Profiles => "profile",
            Self::Plans => "plan",
            Self::Results => "evaluation",
            Self::HitRates => "hit-rate run",
            Self::Speeds => "speed measurement",
            Self::Benches => "bench run",
        }
    }
}

impl Painter {
    pub(super) fn takes(&self) -> SubjectKind {
        match self {
            Self::Profiles(_) => SubjectKind::Profiles,
            Self::Plans(_) => SubjectKind::Plans,
            Self::Results(_) => SubjectKind::Results,
            Self::HitRates(_) => SubjectKind::HitRates,
            Self::Speeds(_) => SubjectKind::Speeds,
            Self::Benches(_) => SubjectKind::Benches,
        }
    }

    /// Draws what fits.
    ///
    /// Errors: [`Error::Invalid`] for nothing, and for another kind than the chart's; the chart's own.
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
            (Self::Results(draw), Subject::Results(all)) if !all.is_empty() => {
                draw(all, options, record)
            }
            (Self::HitRates(draw), Subject::HitRates(all)) if !all.is_empty() => {
                draw(all, options, record)
            }
            (Self::Speeds(draw), Subject::Speeds(all)) if !all.is_empty() => {
                draw(all, options, record)
            }
            (Self::Benches(draw), Subject::Benches(all)) if !all.is_empty() => {
                draw(all, options, record)
            }
            _ => {
                let (kind, option) = (self.takes().name(), self.takes().option());
                let bound = format!("this chart needs at least one; name it with {option}");
                Err(Error::invalid(
                    format!("number of {kind}s for {chart}"),
                    0,
                    bound,
                ))
            }
        }
    }
}

/// Slices, vectors and arrays of a kind as its [`Subject`].
macro_rules! subject_of {
    ($of:ty, $kind:ident) => {
        impl<'s> From<&'s [$of]> for Subject<'s> {
            fn from(all: &'s [$of]) -> Self {
                Self::$kind(all)
            }
        }

        impl<'s> From<&'s Vec<$of>> for Subject<'s> {
            fn from(all: &'s Vec<$of>) -> Self {
                Self::$kind(all)
            }
        }

        impl<'s, const N: usize> From<&'s [$of; N]> for Subject<'s> {
            fn from(all: &'s [$of; N]) -> Self {
                Self::$kind(all)
            }
        }
    };
}

subject_of!(Profile, Profiles);
subject_of!(BudgetPlan, Plans);
subject_of!(Results, Results);
subject_of!(HitRates, HitRates);
subject_of!(Speed, Speeds);
subject_of!(Bench, Benches);
