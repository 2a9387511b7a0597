package paired

import "testing"

// What is done twice takes twice as long, however busy the machine.
func TestRatio(t *testing.T) {
	once := Plain()
	for name, test := range map[string]struct {
		own       func()
		low, high float64
	}{
		"the same": {Plain(), 0.7, 1.4},
		"twice":    {func() { once(); once() }, 1.5, 2.6},
	} {
		if got := Ratio(test.own, once); got < test.low || got > test.high {
			t.Errorf("%s: %.2f", name, got)
		}
	}
	if n := testing.AllocsPerRun(100, once); n > 0 {
		t.Errorf("the yardstick allocates %v times", n)
	}
}
