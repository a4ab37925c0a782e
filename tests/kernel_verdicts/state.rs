//! Full and shared maps of the program.
