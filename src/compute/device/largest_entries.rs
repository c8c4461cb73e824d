//! The best-scored tokens of a layer's heads, without a sort.

use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};

use super::numbers;
use super::program::{Buffer, Launch, Program, Source, size};
use crate::error::{Error, Result};

/// Tokens of a block.
const TILE: usize = 4096;

/// Values of a digit, of as many bits as shifts are apart; also the threads of a block.
const DIGITS: u32 = 256;

/// Shifts of the digits of a score, from the top.
const SCORE_SHIFTS: [u32; 8] = [56, 48, 40, 32, 24, 16, 8, 0];

/// How many tokens every head of a layer keeps, and which in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Tokens of each head that no other head can take, those that always stay included.
    pub own: Vec<usize>,
    /// Further tokens, which go to the best of what is left over all heads.
    pub shared: usize,
    /// First tokens that always stay.
    pub sinks: usize,
    /// Last tokens that always stay.
    pub window: usize,
}

/// The slots that every head of a layer keeps: what always stays, its best tokens, and the best of all heads'.
///
/// Scores are ordered as [`f64::total_cmp`] orders them; ties go to the later token, then to the lower head.
/// Paper: arXiv:2407.11550 (Ada-KV), algorithm 1, for the competition. Differs: exact to the token; no sort.
/// Shapes: scores `(H, T)`, float64 -> `(1 + H + kept)`, u32: whether a score is not finite, how many slots each head
/// keeps, and the slots, ascending, head by head.
/// Errors: [`Error::Candle`]; [`Error::Invalid`] for numbers of tokens that the heads do not have.
pub fn largest_entries(scores: &Tensor, wanted: &Quotas) -> Result<Tensor> {
    let op = LargestEntries::new(scores.dims2()?, wanted)?;
    let own = op.chosen(scores.device())?;
    Ok(scores.contiguous()?.apply_op2_no_bwd(&own, &op)?)
}

/// [`largest_entries`] of one shape.
pub struct LargestEntries {
    heads: usize,
    tokens: usize,
    sinks: usize,
    /// First token of the window.
    window: usize,
    /// Tokens of each head beyond those that always stay.
    chosen: Vec<u32>,
    shared: usize,
    kept: usize,
    /// Operands: scores, tokens of each head beyond those that always stay, what is found.
    pub program: Program,
}

impl LargestEntries {
    /// For scores `(H, T)`.
    ///
    /// Errors: as [`largest_entries`].
    pub fn new((heads, tokens): (usize, usize), wanted: &Quotas) -> Result<Self> {
        let sinks = wanted.sinks.min(tokens);
        let window = tokens - wanted.window.min(tokens);
        let forced = sinks + (tokens - window.max(sinks));
        if wanted.own.len() != heads {
            let bound = format!("{heads} heads are scored");
            return Err(Error::invalid(
                "heads that keep tokens",
                wanted.own.len(),
                bound,
            ));
        }
        size("number of scores", heads * tokens)?;
        let chosen = |&own: &usize| match (forced..=tokens).contains(&own) {
            true => Ok((own - forced) as u32),
            false => {
                let bound = format!("{forced} of {tokens} stay in any case");
                Err(Error::invalid("tokens of a head", own, bound))
            }
        };
        let chosen: Vec<u32> = wanted.own.iter().map(chosen).collect::<Result<_>>()?;
        let own: usize = wanted.own.iter().sum();
        if wanted.shared > heads * tokens - own {
            let bound = format!("{} are left", heads * tokens - own);
            return Err(Error::invalid("shared tokens", wanted.shared, bound));
        }
        let mut op = Self {
            heads,
            tokens,
            sinks,
            window,
            chosen,
            shared: wanted.shared,
            kept: own + wanted.shared,
            program: Program::new(Source::LargestEntries),
        };
        if heads * tokens > 0 {
            op.launches()?;
        }
        Ok(op)
    }

    /// The second operand.
    ///
    /// Errors: [`Error::Candle`].
    pub fn chosen(&self, device: &candle_core::Device) -> Result<Tensor> {
        Ok(Tensor::from_slice(&self.chosen, self.heads, device)?)
    }

    /// Numbers that are found.
    pub fn found(&self) -> usize {
        1 + self.heads + self.kept
    }

    fn launches(&mut self) -> Result<()> {
        let tiles = self.tokens.div_ceil(TILE);
        let edges = self.program.scratch(16 * (self.heads + 1));
        let counts = self.program.scratch(4 * DIGITS as usize * self.heads);
        let places = self.program.scratch(4 * tiles * self.heads);
        let [scores, own, found] = [0, 1, 2].map(Buffer::Operand);
        let (heads, tiles) = (size("number of heads", self.heads)?, tiles as u32);
        let [tokens, sinks, window] = [self.tokens, self.sinks, self.window].map(|n| n as u32);
        let over_scores = [tiles, heads];
        self.launch(
            "best_start",
            [heads + 1, 1],
            vec![
                own.into(),
                edges.into(),
                counts.into(),
                found.into(),
                heads.into(),
                (self.shared as u32).into(),
            ],
        )?;
        let check = vec![scores.into(), found.into(), tokens.into()];
        self.launch("best_check", over_scores, check)?;
        let competitions = [(false, 0, heads), (true, heads, 1)];
        for (compete, first_edge, edges_of_it) in competitions {
            let any = match compete {
                true => self.shared > 0,
                false => self.chosen.iter().any(|own| *own > 0),
            };
            for (of_index, shift) in self.digits().filter(|_| any) {
                let of_index = u32::from(of_index);
                let mut arguments = vec![scores.into(), own.into(), edges.into(), counts.into()];
                let rest = [tokens, sinks, window, u32::from(compete), of_index, shift];
                arguments.extend(rest.map(super::Argument::from));
                self.launch("best_count", over_scores, arguments)?;
                let mut arguments = vec![edges.into(), counts.into()];
                arguments.extend([first_edge, of_index, shift].map(super::Argument::from));
                self.launch("best_pick", [edges_of_it, 1], arguments)?;
            }
        }
        let end = [tokens, sinks, window].map(super::Argument::from);
        let mut arguments = vec![scores.into(), own.into(), edges.into(), places.into()];
        arguments.extend(end);
        self.launch("best_tally", over_scores, arguments)?;
        let arguments = vec![places.into(), found.into(), heads.into(), tiles.into()];
        self.launch("best_places", [1, 1], arguments)?;
        let mut arguments = [scores, own, edges, places, found]
            .map(super::Argument::from)
            .to_vec();
        arguments.extend(end);
        self.launch("best_write", over_scores, arguments)
    }

    /// Digits from the top: whether of the index, and their shifts.
    fn digits(&self) -> impl Iterator<Item = (bool, u32)> + use<> {
        let bits = usize::BITS - (self.tokens - 1).leading_zeros();
        let of_index = (0..bits.div_ceil(8)).rev().map(|digit| (true, 8 * digit));
        SCORE_SHIFTS
            .map(|shift| (false, shift))
            .into_iter()
            .chain(of_index)
    }

    fn launch(
        &mut self,
        kernel: &'static str,
        grid: [u32; 2],
        arguments: Vec<super::Argument>,
    ) -> Result<()> {
        self.program.launch(Launch {
            kernel,
            grid,
            threads: DIGITS,
            shared: 0,
            arguments,
        })
    }
}

impl CustomOp2 for LargestEntries {
    fn name(&self) -> &'static str {
        "largest_entries"
    }

    fn cpu_fwd(
        &self,
        scores: &CpuStorage,
        scores_layout: &Layout,
        own: &CpuStorage,
        own_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let scores = numbers::<f64>(scores, scores_layout, self.name())?;
        let own = numbers::<u32>(own, own_layout, self.name())?;
        let mut kept = Vec::with_capacity(self.heads);
        let mut others = Vec::new();
        for (head, &own) in own.iter().enumerate() {
            let scores = &scores[head * self.tokens..][..self.tokens];
            let mut ranked = self.candidates(head, scores);
            let rest = best_first(&mut ranked, own as usize);
            if self.shared > 0 {
                others.extend_from_slice(rest);
            }
            let mut slots: Vec<u32> = (0..self.sinks as u32).collect();
            slots.extend(ranked[..own as usize].iter().map(|best| best.token()));
            slots.extend(self.window.max(self.sinks) as u32..self.tokens as u32);
            kept.push(slots);
        }
        best_first(&mut others, self.shared);
        for winner in &others[..self.shared] {
            kept[winner.head()].push(winner.token());
        }
        let mut found = Vec::with_capacity(self.found());
        found.push(u32::from(scores.iter().any(|score| !score.is_finite())));
        found.extend(kept.iter().map(|slots| slots.len() as u32));
        for mut slots in kept {
            slots.sort_unstable();
            found.extend(slots);
        }
        Ok((CpuStorage::U32(found), self.found().into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        scores: &candle_core::CudaStorage,
        scores_layout: &Layout,
        own: &candle_core::CudaStorage,
        own_layout: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        use super::cuda::{Operand, run, start};
        let device = &scores.device;
        let stream = device.cuda_stream();
        let (first, first_own) = (
            start(scores_layout, self.name())?,
            start(own_layout, self.name())?,
        );
        let scores = scores.as_cuda_slice::<f64>()?;
        let own = own.as_cuda_slice::<u32>()?;
        let mut found = device.alloc_zeros::<u32>(self.found())?;
        let operands = [
            Operand::read(scores, first, &stream),
            Operand::read(own, first_own, &stream),
            Operand::write(&mut found, 0, &stream),
        ];
        run(&self.program, device, &operands)?;
        drop(operands);
        let found = candle_core::CudaStorage::wrap_cuda_slice(found, device.clone());
        Ok((found, self.found().into()))
    }
}

impl LargestEntries {
    /// The tokens of a head that do not stay anyway.
    fn candidates(&self, head: usize, scores: &[f64]) -> Vec<Candidate> {
        (self.sinks..self.window.max(self.sinks))
            .map(|token| Candidate::new(scores[token], token, head))
            .collect()
    }
}

/// A token that may be kept: the bits of its score, rising as scores do, its index, and its head, the lowest last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate(u128);

impl Candidate {
    fn new(score: f64, token: usize, head: usize) -> Self {
        let bits = score.to_bits();
        let rising = match bits >> 63 {
            0 => bits | 1 << 63,
            _ => !bits,
        };
        Self(u128::from(rising) << 64 | (token as u128) << 32 | u128::from(!(head as u32)))
    }

    fn token(self) -> u32 {
        (self.0 >> 32) as u32
    }

    fn head(self) -> usize {
        !(self.0 as u32) as usize
    }
}

/// Brings the best `count` to the front, in any order; the others.
fn best_first(candidates: &mut [Candidate], count: usize) -> &[Candidate] {
    if (1..candidates.len()).contains(&count) {
        candidates.select_nth_unstable_by(count, |a, b| b.cmp(a));
    }
    &candidates[count..]
}
