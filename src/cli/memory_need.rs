//! What a model and its cache take in memory, refused where there is less.

use candle_core::Device;
use kvprof::compute::memory::available_bytes;
use kvprof::model::ModelHeader;
use kvprof::model::cache::Representation;
use kvprof::model::precision::Precision;

/// An error where the weights and a cache of `cached` tokens are more than the device has left.
pub fn refuse_what_cannot_fit(
    header: &ModelHeader,
    device: &Device,
    precision: Precision,
    cached: usize,
) -> anyhow::Result<()> {
    let least = Least {
        weights: header.weight_memory(device, precision.dtype).held,
        cached,
        cache: header.config.cache_bytes(cached, precision.cache),
    };
    match available_bytes(device).filter(|available| least.bytes() > *available) {
        Some(available) => anyhow::bail!(least.shortage(device, precision.cache, available)),
        None => Ok(()),
    }
}

/// What must be there at once, whatever else is.
struct Least {
    weights: usize,
    /// Tokens.
    cached: usize,
    /// Bytes of their keys and values.
    cache: usize,
}

impl Least {
    fn bytes(&self) -> usize {
        self.weights.saturating_add(self.cache)
    }

    fn shortage(&self, device: &Device, cache: Representation, available: usize) -> String {
        let halved = if cache == Representation::FLOAT32 {
            ", hold keys and values in half the bytes with --cache-dtype bf16"
        } else {
            ""
        };
        format!(
            "weights ({}) and {} cached tokens ({}) take {}, {:?} has {} left; take shorter \
             prompts{halved}, or a smaller model",
            amount(self.weights),
            self.cached,
            amount(self.cache),
            amount(self.bytes()),
            device.location(),
            amount(available),
        )
    }
}

/// An amount of memory in words.
pub fn amount(bytes: usize) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..999_500 => format!("{:.0} kB", bytes as f64 / 1e3),
        _ => format!("{:.0} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvprof::model::cache::Elements;

    #[test]
    fn amounts_have_the_unit_that_shows_them() {
        for (bytes, said) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1 kB"),
            (999_499, "999 kB"),
            (999_500, "1 MB"),
            (1_500_000_000, "1500 MB"),
        ] {
            assert_eq!(amount(bytes), said);
        }
    }

    #[test]
    fn a_shortage_is_said_with_every_number() {
        let least = Least {
            weights: 100_000_000,
            cached: 2000,
            cache: 100_000_000,
        };
        assert_eq!(least.bytes(), 200_000_000);
        let text = least.shortage(&Device::Cpu, Representation::FLOAT32, 150_000_000);
        for part in [
            "100 MB",
            "2000",
            "2000 cached tokens (100 MB)",
            "200 MB",
            "150 MB",
            "--cache-dtype bf16",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let halved = least.shortage(
            &Device::Cpu,
            Representation::both(Elements::Bfloat16),
            150_000_000,
        );
        assert!(!halved.contains("-dtype"), "{halved}");
        let endless = Least {
            cache: usize::MAX,
            ..least
        };
        assert_eq!(endless.bytes(), usize::MAX);
    }
}
