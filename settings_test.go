package tensorpress

import (
	"fmt"
	"reflect"

	"github.com/tensorpress/tensorpress/internal/codec"
	"github.com/tensorpress/tensorpress/internal/engine"
	"github.com/tensorpress/tensorpress/internal/plan"
)

// Resources are what the options of every call have in common.
type Resources = engine.Resources

// rules are --set's, in their words.
func rules(texts ...string) []Rule {
	var all []Rule
	for _, text := range texts {
		r, err := plan.ParseRule(text)
		if err != nil {
			panic(err)
		}
		all = append(all, r)
	}
	return all
}

// also returns settings with what more says in its place.
func also(s, more Settings) Settings {
	to, from := reflect.ValueOf(&s).Elem(), reflect.ValueOf(more)
	for i := range from.NumField() {
		if v := from.Field(i); !v.IsZero() {
			to.Field(i).Set(v)
		}
	}
	return s
}

// say adds a setting by the name of its flag.
func say(s *Settings, flag string, v any) {
	if err := codec.Parse(s, flag, fmt.Sprint(v), true); err != nil {
		panic(err)
	}
}
