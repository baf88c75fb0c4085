//! How good logits are, and the slope and intercept that make them calibrated.

/// Mean log loss of logits against labels; NaN labels do not count.
pub(crate) fn log_loss(logits: &[f32], labels: &[f32]) -> f64 {
    let (mut sum, mut n) = (0.0, 0.0f64);
    for (x, y) in logits.iter().zip(labels).filter(|(_, y)| !y.is_nan()) {
        sum += loss(*x, *y);
        n += 1.0;
    }
    sum / n.max(1.0)
}

/// The log loss of a logit against a label.
pub(super) fn loss(logit: f32, label: f32) -> f64 {
    let (x, y) = (f64::from(logit), f64::from(label));
    x.max(0.0) + (-x.abs()).exp().ln_1p() - y * x
}

/// Slope and intercept that make logits calibrated on these labels: Platt scaling by Newton's method with a weak pull to
/// (1, 0).
pub(crate) fn calibrate(logits: impl Iterator<Item = (f32, f32)> + Clone) -> [f32; 2] {
    let (mut a, mut b) = (1.0f64, 0.0f64);
    for _ in 0..30 {
        let pull = 1.0;
        let (mut ga, mut gb) = (pull * (a - 1.0), pull * b);
        let (mut haa, mut hab, mut hbb) = (pull, 0.0, pull);
        for (x, y) in logits.clone().filter(|(_, y)| !y.is_nan()) {
            let (x, y) = (f64::from(x), f64::from(y));
            let p = 1.0 / (1.0 + (-(a * x + b)).exp());
            let (d, w) = (p - y, p * (1.0 - p));
            ga += d * x;
            gb += d;
            haa += w * x * x;
            hab += w * x;
            hbb += w;
        }
        let det = haa * hbb - hab * hab;
        let (da, db) = ((hbb * ga - hab * gb) / det, (haa * gb - hab * ga) / det);
        if !da.is_finite() || !db.is_finite() {
            break;
        }
        a -= da.clamp(-1.0, 1.0);
        b -= db.clamp(-1.0, 1.0);
        if da.abs() + db.abs() < 1e-9 {
            break;
        }
    }
    [a as f32, b as f32]
}
