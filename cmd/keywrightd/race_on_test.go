//go:build race

package main

// slower is how much more time promises get that are made of a program without the
// race detector.
const slower = 6
