package sdnqconfig

import (
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/internal/pyjson"
)

// Renamed returns the config of a model whose parameters have other names.
func (c *Config) Renamed(to func(name string) string) *Config {
	entry := func(e string) string {
		if rest, ok := strings.CutPrefix(e, "."); ok {
			return "." + to(rest)
		}
		return to(e)
	}
	r := *c
	r.NotConvert, r.NotMatmul = renamed(c.NotConvert, entry), renamed(c.NotMatmul, entry)
	r.DtypeLists, r.Modules = slices.Clone(c.DtypeLists), slices.Clone(c.Modules)
	for i := range r.DtypeLists {
		r.DtypeLists[i].Names = renamed(r.DtypeLists[i].Names, entry)
	}
	for i := range r.Modules {
		r.Modules[i].Pattern = entry(r.Modules[i].Pattern)
	}
	r.Shapes = nil
	for _, m := range c.Shapes {
		r.Shapes = append(r.Shapes, pyjson.Member{Key: to(m.Key), Value: m.Value})
	}
	return &r
}

func renamed(entries []string, to func(string) string) []string {
	all := slices.Clone(entries)
	for i := range all {
		all[i] = to(all[i])
	}
	return all
}
