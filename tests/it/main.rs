//! What Styxy promises, shown from outside.
