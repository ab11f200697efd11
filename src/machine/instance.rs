//! What a cloud machine is entitled to: Amazon's burstable types, by name. Nothing on the machine tells the credits that are left.
//! Runs in: both, before anything is forked; offline.
//!
//! Figures: Amazon EC2 User Guide, "Key concepts for burstable performance instances" and "Network bandwidth".

use std::fs;

/// A type of the t3 family. Its twins t3a and t4g are sized alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Burstable {
    pub size: &'static str,
    pub vcpus: usize,
    /// What one vCPU may use for ever, of 1.
    pub baseline: f64,
    /// CPU credits earned an hour; one is a vCPU for a minute.
    pub credits_per_hour: u32,
    /// Mbit/s that may be sent for ever.
    pub network_baseline_mbit: u32,
}

const fn size(
    size: &'static str,
    vcpus: usize,
    baseline: f64,
    credits_per_hour: u32,
    network_baseline_mbit: u32,
) -> Burstable {
    Burstable { size, vcpus, baseline, credits_per_hour, network_baseline_mbit }
}

/// The family.
pub const T3: [Burstable; 7] = [
    size("nano", 2, 0.05, 6, 32),
    size("micro", 2, 0.10, 12, 64),
    size("small", 2, 0.20, 24, 128),
    size("medium", 2, 0.20, 24, 256),
    size("large", 2, 0.30, 36, 512),
    size("xlarge", 4, 0.40, 96, 1024),
    size("2xlarge", 8, 0.40, 192, 2048),
];

impl Burstable {
    /// The type of a name, as in t3.medium; None for one that does not burst.
    pub fn of(name: &str) -> Option<&'static Burstable> {
        let (family, size) = name.split_once('.')?;
        matches!(family, "t3" | "t3a" | "t4g").then(|| T3.iter().find(|t3| t3.size == size)).flatten()
    }

    /// Cores that may be used for ever.
    pub fn sustained_cores(&self) -> f64 {
        self.vcpus as f64 * self.baseline
    }
}

/// Whether a type's vCPUs share cores by two: on Intel's and AMD's they do, a Graviton's are cores.
pub fn has_hyperthreads(name: &str) -> bool {
    name.starts_with("t3.") || name.starts_with("t3a.")
}

/// The instance's type, where this machine is one of Amazon's: its firmware says so.
pub fn name() -> Option<String> {
    let read = |file: &str| fs::read_to_string(format!("/sys/devices/virtual/dmi/id/{file}")).ok();
    let vendor = read("sys_vendor")?;
    read("product_name").map(|name| name.trim().to_string()).filter(|_| vendor.trim() == "Amazon EC2")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_family_by_name() {
        let cores = |name: &str| Burstable::of(name).map(Burstable::sustained_cores);
        assert_eq!(cores("t3.xlarge"), Some(1.6));
        assert_eq!(cores("t4g.micro"), Some(0.2));
        assert_eq!((cores("m5.large"), cores("t3.huge"), cores("")), (None, None, None));
    }

    #[test]
    fn a_baseline_is_what_its_credits_pay_for() {
        for t3 in T3 {
            let paid = f64::from(t3.credits_per_hour) / 60.0;
            assert!((paid - t3.sustained_cores()).abs() < 0.01, "{}", t3.size);
        }
    }
}
