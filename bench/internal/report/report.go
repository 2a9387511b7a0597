// Package report turns rounds of measurements into figures, and prints them as a
// table and as JSON.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/keywright/keywright/bench/internal/stat"
)

// Goal is what a ratio should be. The zero value is none.
type Goal struct {
	Ratio  float64
	AtMost bool // a ceiling, for costs; else at least
}

// Round is one measurement of a subject and, where there is one, of its floor
// right before or after it; or what was promised, in the place of a floor.
type Round struct{ Value, Floor float64 }

// Figure is one row of the report.
type Figure struct {
	Name    string
	Unit    string
	Goal    Goal
	Rounds  []Round
	Latency stat.Histogram // of all rounds; empty where calls were not timed
}

// Value is the median over the rounds.
func (f *Figure) Value() float64 {
	return f.median(func(r Round) float64 { return r.Value })
}

// Floor is the floor's median over the rounds; 0 is none.
func (f *Figure) Floor() float64 {
	return f.median(func(r Round) float64 { return r.Floor })
}

// Ratio is the median of the rounds' ratios of value to floor, 0 where there is
// no floor: a drift of the machine moves both sides of a round alike.
func (f *Figure) Ratio() float64 {
	return stat.Median(f.ratios())
}

// Holds tells whether the ratio reaches the goal.
func (f *Figure) Holds() bool {
	if f.Goal.AtMost {
		return f.Ratio() <= f.Goal.Ratio
	}
	return f.Ratio() >= f.Goal.Ratio
}

func (f *Figure) median(of func(Round) float64) float64 {
	values := make([]float64, len(f.Rounds))
	for i, r := range f.Rounds {
		values[i] = of(r)
	}
	return stat.Median(values)
}

func (f *Figure) ratios() []float64 {
	ratios := []float64{}
	for _, r := range f.Rounds {
		if r.Floor > 0 {
			ratios = append(ratios, r.Value/r.Floor)
		}
	}
	return ratios
}

// row is a figure in JSON. What a figure does not have is null.
type row struct {
	Name   string    `json:"name"`
	Value  float64   `json:"value"`
	Unit   string    `json:"unit"`
	Floor  *float64  `json:"floor"`
	Ratio  *float64  `json:"ratio"`
	Goal   *float64  `json:"goal"`
	AtMost bool      `json:"at_most"` // the goal is a ceiling
	Holds  *bool     `json:"holds"`
	Rounds int       `json:"rounds"`
	Ratios []float64 `json:"ratios"` // one per round that has a floor
	P50    *float64  `json:"p50_seconds"`
	P99    *float64  `json:"p99_seconds"`
}

func (f *Figure) row() row {
	r := row{Name: f.Name, Value: f.Value(), Unit: f.Unit, Rounds: len(f.Rounds), Ratios: f.ratios()}
	if len(r.Ratios) > 0 {
		r.Floor, r.Ratio = new(f.Floor()), new(f.Ratio())
	}
	if r.Ratio != nil && f.Goal.Ratio > 0 {
		r.Goal, r.AtMost, r.Holds = new(f.Goal.Ratio), f.Goal.AtMost, new(f.Holds())
	}
	if f.Latency.Count() > 0 {
		r.P50, r.P99 = new(f.Latency.Quantile(0.5).Seconds()), new(f.Latency.Quantile(0.99).Seconds())
	}
	return r
}

// WriteJSON writes the figures as an array to a file, whose folder it makes.
func WriteJSON(path string, figures []*Figure) error {
	rows := make([]row, len(figures))
	for i, f := range figures {
		rows[i] = f.row()
	}
	text, err := json.MarshalIndent(rows, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o600)
}

// WriteTable prints the figures for people.
func WriteTable(w io.Writer, figures []*Figure) error {
	width := 0
	for _, f := range figures {
		width = max(width, utf8.RuneCountInString(f.Name))
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "%-*s\tvalue\tunit\tfloor\tratio\tgoal\tp50\tp99\t\n", width, "name")
	for _, f := range figures {
		r := f.row()
		fmt.Fprintf(table, "%-*s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", width, r.Name, amount(&r.Value), r.Unit, amount(r.Floor),
			ratio(r.Ratio), r.goal(), duration(r.P50), duration(r.P99))
	}
	return table.Flush()
}

const none = "-"

// amount shows a number with a precision that fits its size.
func amount(v *float64) string {
	switch {
	case v == nil:
		return none
	case *v < 1:
		return fmt.Sprintf("%.3f", *v)
	case *v < 100:
		return fmt.Sprintf("%.1f", *v)
	default:
		return fmt.Sprintf("%.0f", *v)
	}
}

func ratio(v *float64) string {
	if v == nil {
		return none
	}
	return fmt.Sprintf("%.2f", *v)
}

// goal shows the goal and whether it is held.
func (r row) goal() string {
	if r.Goal == nil {
		return none
	}
	bound, verdict := "≥", "missed"
	if r.AtMost {
		bound = "≤"
	}
	if *r.Holds {
		verdict = "holds"
	}
	return fmt.Sprintf("%s %.2f %s", bound, *r.Goal, verdict)
}

func duration(seconds *float64) string {
	if seconds == nil {
		return none
	}
	return time.Duration(*seconds * float64(time.Second)).Round(time.Microsecond).String()
}
