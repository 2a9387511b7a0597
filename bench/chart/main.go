// Command chart draws the curves of the bench's report as SVG, one file for each thing
// that grows. It is a module of its own, so that nothing else carries a plotting
// library.
//
//	go run . FOLDER    reads FOLDER/report.json, writes FOLDER/*.svg
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: chart FOLDER")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

// figure is a row of the report, as far as it matters here.
type figure struct {
	Name  string   `json:"name"`
	Value float64  `json:"value"`
	Unit  string   `json:"unit"`
	Floor *float64 `json:"floor"`
	Goal  *float64 `json:"goal"`
}

// curve is what a report says of one thing, by size.
type curve struct {
	name, unit, of string      // "Encrypt", "of one", "versions of the key"
	points, floors plotter.XYs // floors: none where the unit is a ratio already
	goal           *float64
}

// sized splits a row's name: what, its size, and of what.
var sized = regexp.MustCompile(`^(\w+)(?: with| of) (\d+) (.+)$`)

func run(folder string, out io.Writer) error {
	text, err := os.ReadFile(filepath.Join(folder, "report.json"))
	if err != nil {
		return err
	}
	var figures []figure
	if err := json.Unmarshal(text, &figures); err != nil {
		return fmt.Errorf("report.json: %w", err)
	}
	for _, c := range curves(figures) {
		path := filepath.Join(folder, fileName(c.name+" "+c.of)+".svg")
		if err := c.draw(path); err != nil {
			return err
		}
		fmt.Fprintln(out, path)
	}
	return nil
}

// curves are the rows that have a size, in the order of the report, with two points or
// more.
func curves(figures []figure) (all []*curve) {
	byName := map[string]*curve{}
	for _, f := range figures {
		m := sized.FindStringSubmatch(f.Name)
		if m == nil {
			continue
		}
		size, err := strconv.ParseFloat(m[2], 64)
		if err != nil || size <= 0 {
			continue
		}
		key := m[1] + " " + m[3]
		c := byName[key]
		if c == nil {
			c = &curve{name: m[1], of: m[3], unit: f.Unit, goal: f.Goal}
			byName[key], all = c, append(all, c)
		}
		c.points = append(c.points, plotter.XY{X: size, Y: f.Value})
		if f.Floor != nil && f.Goal == nil {
			c.floors = append(c.floors, plotter.XY{X: size, Y: *f.Floor})
		}
	}
	return slices.DeleteFunc(all, func(c *curve) bool { return len(c.points) < 2 })
}

func (c *curve) draw(path string) error {
	p := plot.New()
	p.Title.Text = c.name + ", by " + c.of
	p.X.Label.Text, p.Y.Label.Text = c.of, c.name+", "+c.unit
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Y.Min = 0
	lines := []any{"measured", c.points}
	if len(c.floors) > 0 {
		lines = append(lines, "floor", c.floors)
	}
	if err := plotutil.AddLinePoints(p, lines...); err != nil {
		return err
	}
	if c.goal != nil && c.unit == "of one" {
		goal := plotter.NewFunction(func(float64) float64 { return *c.goal })
		goal.Dashes = plotutil.Dashes(1)
		p.Add(goal)
		p.Legend.Add("goal, at least", goal)
	}
	for _, at := range append(c.points[:len(c.points):len(c.points)], c.floors...) {
		p.Y.Max = max(p.Y.Max, at.Y*1.1)
	}
	return p.Save(16*vg.Centimeter, 10*vg.Centimeter, path)
}

func fileName(text string) string {
	return regexp.MustCompile(`[^a-zA-Z0-9]+`).ReplaceAllString(text, "-")
}
