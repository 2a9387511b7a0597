//go:build race

package hsm_test

// raceEnabled tells that the race detector's own memory grows with what is done.
const raceEnabled = true
