//go:build !race

package hsm_test

const raceEnabled = false

const slower = 1
