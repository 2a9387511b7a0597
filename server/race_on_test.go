//go:build race

package server_test

// raceEnabled tells that everything takes several times as long.
const raceEnabled = true
