package interop

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table into docs/vault.md")

// verdict says how Keywright does beside OpenBao.
type verdict string

const (
	same    verdict = "same"
	better  verdict = "better"  // the note says in what
	missing verdict = "missing" // refused, and the note says what there is instead
)

// row is a parameter of an endpoint, as OpenBao 2.6 documents it.
type row struct {
	endpoint, parameter string
	verdict             verdict
	note                string
	try                 func(*try)
	// here is what is seen of Keywright, where that is something else.
	here func(*try)
}

// TestTable tries each row with each client.
func TestTable(t *testing.T) {
	server := newTarget(t)
	clients := server.clients()
	for _, r := range allRows() {
		name := strings.NewReplacer("/", "·", " ", "_").Replace(r.endpoint + " " + r.parameter)
		t.Run(name, func(t *testing.T) {
			for name, c := range clients {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					if try := newTry(t, server, c); r.here != nil && !server.peer {
						r.here(try)
					} else {
						r.try(try)
					}
				})
			}
		})
	}
}

func allRows() (all []row) {
	for _, rows := range [][]row{keyRows, configRows, useRows, signRows, moveRows, otherRows} {
		all = append(all, rows...)
	}
	return all
}

// TestTableInDocs keeps the table of docs/vault.md: what was tried, and how it went.
func TestTableInDocs(t *testing.T) {
	const file, begin, end = "../../../docs/vault.md", "<!-- The table is made by make compat-table. -->\n", "<!-- End of the table. -->"
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := bytes.Cut(page, []byte(begin))
	_, after, ends := bytes.Cut(rest, []byte(end))
	if !found || !ends {
		t.Fatalf("%s has no place for the table", file)
	}
	made := fmt.Appendf(nil, "%s%s%s%s%s", before, begin, table(), end, after)
	if bytes.Equal(made, page) {
		return
	}
	if !*update {
		t.Fatalf("the table in %s is stale: make compat-table", file)
	}
	if err := os.WriteFile(file, made, 0o644); err != nil {
		t.Fatal(err)
	}
}

func table() string {
	var lines strings.Builder
	counts := map[verdict]int{}
	for _, r := range allRows() {
		counts[r.verdict]++
	}
	fmt.Fprintf(&lines, "\n%d parameters and properties: %d the same, %d better, %d missing.\n\n", len(allRows()), counts[same], counts[better], counts[missing])
	lines.WriteString("| endpoint | parameter or property | | note |\n|---|---|---|---|\n")
	endpoint := ""
	for _, r := range allRows() {
		shown := "`" + r.endpoint + "`"
		if r.endpoint == endpoint {
			shown = ""
		}
		endpoint = r.endpoint
		fmt.Fprintf(&lines, "| %s | %s | %s | %s |\n", shown, r.parameter, r.verdict, r.note)
	}
	lines.WriteString("\n")
	return lines.String()
}

// TestRowsAreWhole makes sure that each row says what it must.
func TestRowsAreWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range allRows() {
		id := r.endpoint + " " + r.parameter
		if r.try == nil || seen[id] || (r.verdict == same) != (r.here == nil) || r.verdict != same && r.note == "" {
			t.Errorf("the row %s is not whole", id)
		}
		seen[id] = true
	}
}
