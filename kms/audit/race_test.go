//go:build race

package audit

// raceEnabled: the race detector makes sync.Pool drop things at random.
const raceEnabled = true
