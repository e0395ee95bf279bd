//! The elementwise functions by name: value and derivative, in f32 for the
//! kernels and in f64 as the definition that everything is tested against.

use crate::math;
use serde::{Deserialize, Serialize};

/// A function of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnaryFunction {
    /// -x
    Negate,
    /// |x|, with derivative 0 at 0
    Abs,
    /// e^x
    Exp,
    /// natural logarithm
    Log,
    /// square root
    Sqrt,
    /// x²
    Square,
    /// 1 / x
    Reciprocal,
    /// hyperbolic tangent
    Tanh,
    /// 1 / (1 + e^-x)
    Sigmoid,
    /// log(1 + e^x)
    Softplus,
    /// max(x, 0), with derivative 0 at 0
    Relu,
    /// max(x, 0)²
    ReluSquared,
    /// x * sigmoid(x)
    Silu,
    /// GELU in its tanh form
    Gelu,
}

/// A function of two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BinaryFunction {
    /// x + y
    Add,
    /// x - y
    Subtract,
    /// x * y
    Multiply,
    /// x / y
    Divide,
    /// the larger; NaN where either is
    Maximum,
    /// the smaller; NaN where either is
    Minimum,
}

/// The function of the gate in a gated linear unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateActivation {
    /// 1 / (1 + e^-x)
    Sigmoid,
    /// x * sigmoid(x)
    Silu,
    /// GELU in its tanh form
    Gelu,
    /// max(x, 0), with derivative 0 at 0
    Relu,
    /// x
    Identity,
}

impl UnaryFunction {
    /// Every function.
    pub const ALL: &[Self] = &[
        Self::Negate,
        Self::Abs,
        Self::Exp,
        Self::Log,
        Self::Sqrt,
        Self::Square,
        Self::Reciprocal,
        Self::Tanh,
        Self::Sigmoid,
        Self::Softplus,
        Self::Relu,
        Self::ReluSquared,
        Self::Silu,
        Self::Gelu,
    ];

    /// The value in f32, as the kernels compute it.
    #[inline(always)]
    pub fn value(self, x: f32) -> f32 {
        match self {
            Self::Negate => -x,
            Self::Abs => x.abs(),
            Self::Exp => math::exp(x),
            Self::Log => math::log(x),
            Self::Sqrt => x.sqrt(),
            Self::Square => x * x,
            Self::Reciprocal => 1.0 / x,
            Self::Tanh => math::tanh(x),
            Self::Sigmoid => math::sigmoid(x),
            Self::Softplus => math::softplus(x),
            Self::Relu => relu(x),
            Self::ReluSquared => relu(x) * relu(x),
            Self::Silu => math::silu(x),
            Self::Gelu => math::gelu(x),
        }
    }

    /// The derivative in f32, as the kernels compute it.
    #[inline(always)]
    pub fn derivative(self, x: f32) -> f32 {
        match self {
            Self::Negate => -1.0,
            Self::Abs => step(x) - step(-x),
            Self::Exp => math::exp(x),
            Self::Log => 1.0 / x,
            Self::Sqrt => 0.5 / x.sqrt(),
            Self::Square => 2.0 * x,
            Self::Reciprocal => -1.0 / (x * x),
            Self::Tanh => {
                let y = math::tanh(x);
                1.0 - y * y
            }
            Self::Sigmoid => {
                let y = math::sigmoid(x);
                y * (1.0 - y)
            }
            Self::Softplus => math::sigmoid(x),
            Self::Relu => step(x),
            Self::ReluSquared => 2.0 * relu(x),
            Self::Silu => math::silu_with_derivative(x).1,
            Self::Gelu => math::gelu_with_derivative(x).1,
        }
    }

    /// The definition, in f64.
    pub fn value_f64(self, x: f64) -> f64 {
        match self {
            Self::Negate => -x,
            Self::Abs => x.abs(),
            Self::Exp => x.exp(),
            Self::Log => x.ln(),
            Self::Sqrt => x.sqrt(),
            Self::Square => x * x,
            Self::Reciprocal => x.recip(),
            Self::Tanh => x.tanh(),
            Self::Sigmoid => sigmoid_f64(x),
            Self::Softplus => relu_f64(x) + (-x.abs()).exp().ln_1p(),
            Self::Relu => relu_f64(x),
            Self::ReluSquared => relu_f64(x).powi(2),
            Self::Silu => x * sigmoid_f64(x),
            Self::Gelu => x * sigmoid_f64(2.0 * gelu_argument_f64(x)),
        }
    }

    /// The derivative of the definition, in f64; 0 at 0 for `Abs` and `Relu`.
    pub fn derivative_f64(self, x: f64) -> f64 {
        match self {
            Self::Negate => -1.0,
            Self::Abs => step_f64(x) - step_f64(-x),
            Self::Exp => x.exp(),
            Self::Log => x.recip(),
            Self::Sqrt => 0.5 / x.sqrt(),
            Self::Square => 2.0 * x,
            Self::Reciprocal => -(x * x).recip(),
            Self::Tanh => x.cosh().powi(-2),
            Self::Sigmoid => sigmoid_f64(x) * sigmoid_f64(-x),
            Self::Softplus => sigmoid_f64(x),
            Self::Relu => step_f64(x),
            Self::ReluSquared => 2.0 * relu_f64(x),
            Self::Silu => sigmoid_f64(x) * (1.0 + x * sigmoid_f64(-x)),
            Self::Gelu => {
                let u = gelu_argument_f64(x);
                let slope = (2.0 / std::f64::consts::PI).sqrt() * (1.0 + 3.0 * 0.044715 * x * x);
                sigmoid_f64(2.0 * u) * (1.0 + 2.0 * x * sigmoid_f64(-2.0 * u) * slope)
            }
        }
    }
}

impl BinaryFunction {
    /// Every function.
    pub const ALL: &[Self] =
        &[Self::Add, Self::Subtract, Self::Multiply, Self::Divide, Self::Maximum, Self::Minimum];

    /// The value in f32, as the kernels compute it.
    #[inline(always)]
    pub fn value(self, x: f32, y: f32) -> f32 {
        match self {
            Self::Add => x + y,
            Self::Subtract => x - y,
            Self::Multiply => x * y,
            Self::Divide => x / y,
            Self::Maximum => math::maximum(x, y),
            Self::Minimum => math::minimum(x, y),
        }
    }

    /// The definition, in f64.
    pub fn value_f64(self, x: f64, y: f64) -> f64 {
        match self {
            Self::Add => x + y,
            Self::Subtract => x - y,
            Self::Multiply => x * y,
            Self::Divide => x / y,
            Self::Maximum if x > y || x.is_nan() => x,
            Self::Minimum if x < y || x.is_nan() => x,
            Self::Maximum | Self::Minimum => y,
        }
    }
}

impl GateActivation {
    /// Every activation.
    pub const ALL: &[Self] = &[Self::Sigmoid, Self::Silu, Self::Gelu, Self::Relu, Self::Identity];

    /// The value in f32, as the kernels compute it.
    #[inline(always)]
    pub fn value(self, x: f32) -> f32 {
        match self {
            Self::Sigmoid => math::sigmoid(x),
            Self::Silu => math::silu(x),
            Self::Gelu => math::gelu(x),
            Self::Relu => relu(x),
            Self::Identity => x,
        }
    }

    /// The value and the derivative in f32, as the kernels compute them.
    #[inline(always)]
    pub fn value_with_derivative(self, x: f32) -> (f32, f32) {
        match self {
            Self::Sigmoid => {
                let y = math::sigmoid(x);
                (y, y * (1.0 - y))
            }
            Self::Silu => math::silu_with_derivative(x),
            Self::Gelu => math::gelu_with_derivative(x),
            Self::Relu => (relu(x), step(x)),
            Self::Identity => (x, 1.0),
        }
    }

    /// The definition, in f64.
    pub fn value_f64(self, x: f64) -> f64 {
        self.unary().map_or(x, |function| function.value_f64(x))
    }

    /// The derivative of the definition, in f64; 0 at 0 for `Relu`.
    pub fn derivative_f64(self, x: f64) -> f64 {
        self.unary().map_or(1.0, |function| function.derivative_f64(x))
    }

    /// The same function among the unary ones, where it is one of them.
    pub fn unary(self) -> Option<UnaryFunction> {
        match self {
            Self::Sigmoid => Some(UnaryFunction::Sigmoid),
            Self::Silu => Some(UnaryFunction::Silu),
            Self::Gelu => Some(UnaryFunction::Gelu),
            Self::Relu => Some(UnaryFunction::Relu),
            Self::Identity => None,
        }
    }
}

#[inline(always)]
fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

#[inline(always)]
fn step(x: f32) -> f32 {
    if x > 0.0 { 1.0 } else { 0.0 }
}

fn relu_f64(x: f64) -> f64 {
    if x < 0.0 { 0.0 } else { x }
}

fn step_f64(x: f64) -> f64 {
    if x > 0.0 { 1.0 } else { 0.0 }
}

fn sigmoid_f64(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn gelu_argument_f64(x: f64) -> f64 {
    (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))
}

/// Runs `body` with `constant` bound to the function as a constant, so that
/// the choice is made once outside the loop and each loop is compiled apart.
macro_rules! specialise {
    (UnaryFunction, $function:expr, $constant:ident => $body:block) => {
        $crate::function::specialise!(
            @ UnaryFunction
            [Negate Abs Exp Log Sqrt Square Reciprocal Tanh Sigmoid Softplus Relu ReluSquared Silu Gelu]
            $function, $constant => $body
        )
    };
    (BinaryFunction, $function:expr, $constant:ident => $body:block) => {
        $crate::function::specialise!(
            @ BinaryFunction [Add Subtract Multiply Divide Maximum Minimum]
            $function, $constant => $body
        )
    };
    (GateActivation, $function:expr, $constant:ident => $body:block) => {
        $crate::function::specialise!(
            @ GateActivation [Sigmoid Silu Gelu Relu Identity]
            $function, $constant => $body
        )
    };
    (@ $kind:ident [$($variant:ident)*] $function:expr, $constant:ident => $body:block) => {
        match $function {
            $($crate::function::$kind::$variant => {
                const $constant: $crate::function::$kind = $crate::function::$kind::$variant;
                $body
            })*
        }
    };
}
pub(crate) use specialise;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivatives_agree_with_finite_differences() {
        let functions = UnaryFunction::ALL.iter();
        for (function, x) in functions.flat_map(|f| [0.3, 0.9, 1.7, 4.0].map(|x| (*f, x))) {
            let h = 1e-5;
            let slope = (function.value_f64(x + h) - function.value_f64(x - h)) / (2.0 * h);
            let exact = function.derivative_f64(x);
            assert!((slope - exact).abs() < 1e-8 * (1.0 + exact.abs()), "{function:?} at {x}");
        }
        for function in UnaryFunction::ALL {
            if matches!(function, UnaryFunction::Log | UnaryFunction::Sqrt) {
                continue;
            }
            for x in [-0.2, -1.3, -3.5] {
                let h = 1e-5;
                let slope = (function.value_f64(x + h) - function.value_f64(x - h)) / (2.0 * h);
                let exact = function.derivative_f64(x);
                assert!((slope - exact).abs() < 1e-8 * (1.0 + exact.abs()), "{function:?} at {x}");
            }
        }
        assert_eq!(UnaryFunction::Relu.derivative_f64(0.0), 0.0);
        assert_eq!(UnaryFunction::Abs.derivative_f64(0.0), 0.0);
    }

    #[test]
    fn values_in_f32_agree_with_the_definition() {
        for &function in UnaryFunction::ALL {
            for i in 1..=2000 {
                let x = i as f32 * 0.004;
                let signs: &[f32] = match function {
                    UnaryFunction::Log | UnaryFunction::Sqrt => &[1.0],
                    _ => &[1.0, -1.0],
                };
                for x in signs.iter().map(|sign| sign * x) {
                    let close = |ours: f32, exact: f64| {
                        (ours as f64 - exact).abs() <= 2e-6 * (exact.abs() + 0.5)
                    };
                    assert!(
                        close(function.value(x), function.value_f64(x as f64)),
                        "{function:?}({x})"
                    );
                    assert!(
                        close(function.derivative(x), function.derivative_f64(x as f64)),
                        "derivative of {function:?} at {x}"
                    );
                }
            }
        }
        for &activation in GateActivation::ALL {
            for x in [-3.0f32, -0.5, 0.0, 0.7, 2.0] {
                let (value, slope) = activation.value_with_derivative(x);
                assert!((value - activation.value(x)).abs() < 1e-6, "{activation:?} at {x}");
                let value = value as f64 - activation.value_f64(x as f64);
                let slope = slope as f64 - activation.derivative_f64(x as f64);
                assert!(value.abs() < 1e-6 && slope.abs() < 1e-6, "{activation:?} at {x}");
            }
        }
    }

    #[test]
    fn a_function_has_one_name_outside() {
        for (index, function) in UnaryFunction::ALL.iter().enumerate() {
            assert_eq!(*function as usize, index);
        }
        for (index, function) in BinaryFunction::ALL.iter().enumerate() {
            assert_eq!(*function as usize, index);
        }
        for (index, activation) in GateActivation::ALL.iter().enumerate() {
            assert_eq!(*activation as usize, index);
        }
    }
}
