//go:build race

package hsm_test

// raceEnabled tells that the race detector's own memory grows with what is done.
const raceEnabled = true

// slower is how much more time promises get that are made of a program without it.
const slower = 6
