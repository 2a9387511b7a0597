package cryptoki

import "testing"

func TestSessionLimit(t *testing.T) {
	const unlimited, unknown = 0, ^uint(0) // CK_EFFECTIVELY_INFINITE, CK_UNAVAILABLE_INFORMATION
	cases := []struct {
		counts [2]uint
		want   int
	}{
		{[2]uint{unlimited, unknown}, 0},
		{[2]uint{8, unlimited}, 8},
		{[2]uint{unknown, 4}, 4},
		{[2]uint{8, 4}, 4},
	}
	for _, c := range cases {
		if got := sessionLimit(c.counts[:]...); got != c.want {
			t.Errorf("limit of %v = %d, want %d", c.counts, got, c.want)
		}
	}
}
