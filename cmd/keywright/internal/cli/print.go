package cli

import (
	"context"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/keywright/keywright/cmd/keywright/internal/ui"
)

// maxPage is the most that a server lists at once.
const maxPage = 1000

func describe[T proto.Message](a *app, columns []ui.Column[T], item T) error {
	if a.json() {
		return ui.JSON(a.Out, item)
	}
	return ui.Describe(a.Out, columns, item)
}

func list[T proto.Message](a *app, columns []ui.Column[T], items []T) error {
	if a.json() {
		return ui.JSONList(a.Out, items)
	}
	return ui.List(a.Out, columns, items)
}

// listPages collects all pages that fetch returns and prints them.
func listPages[T proto.Message](ctx context.Context, a *app, columns []ui.Column[T], fetch func(ctx context.Context, token string) ([]T, string, error)) error {
	var all []T
	for token, more := "", true; more; more = token != "" {
		page, next, err := fetch(ctx, token)
		if err != nil {
			return err
		}
		all, token = append(all, page...), next
	}
	return list(a, columns, all)
}

func number(n uint32) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(n), 10)
}
