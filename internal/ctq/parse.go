package ctq

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tensorpress/tensorpress/internal/suggest"
)

// Command is a command line as it was given.
type Command struct {
	values map[string]string // by [Option.Name]; "" for a switch
}

// Has reports whether an option was given.
func (c *Command) Has(name string) bool {
	_, ok := c.values[find(name).Name()]
	return ok
}

// Text returns an option's value, or its default.
func (c *Command) Text(name string) string {
	if v, ok := c.values[name]; ok {
		return v
	}
	return find(name).Default
}

// Int returns a whole number, or its default, 0 where it has none.
func (c *Command) Int(name string) int {
	n, _ := wholeNumber(c.Text(name)) // set has seen it
	return n
}

// Given are the rows of what was given, in the table's order.
func (c *Command) Given() []Option {
	var list []Option
	for _, o := range options {
		if c.Has(o.Name()) {
			list = append(list, o)
		}
	}
	return list
}

func find(name string) *Option {
	for i := range options {
		if options[i].Name() == name {
			return &options[i]
		}
	}
	panic("ctq: there is no option " + name)
}

// Parse reads arguments as Python's argparse does: names may be cut short where
// that is unique, a value may follow an equals sign, and the last of several
// counts. Where help is asked for, nothing else is looked at.
func Parse(args []string) (*Command, error) {
	c := &Command{map[string]string{}}
	if o := sectionAsked(args); o != nil {
		c.values[o.Name()] = ""
		return c, nil
	}
	var strange []string
	for len(args) > 0 && !c.Has("help") {
		arg := args[0]
		args = args[1:]
		o, value, hasValue, err := lookUp(arg)
		if err != nil {
			return nil, err
		}
		if o == nil {
			strange = append(strange, arg)
			continue
		}
		if !hasValue && o.Kind != Switch && len(args) > 0 && isValue(args[0]) {
			value, hasValue, args = args[0], true, args[1:]
		}
		if err := c.set(o, value, hasValue); err != nil {
			return nil, err
		}
	}
	switch {
	case c.Has("help"):
	case !c.Has("input"):
		return nil, fmt.Errorf("these arguments are required: -i/--input")
	case len(strange) > 0:
		return nil, fmt.Errorf("unrecognized arguments: %s%s", strings.Join(strange, " "), suggest.Hint(strange[0], optionNames()))
	}
	return c, nil
}

func optionNames() []string {
	var names []string
	for i := range options {
		names = append(names, options[i].Names...)
	}
	return names
}

// sectionAsked is the option that asks for a part of the help, wherever it is.
func sectionAsked(args []string) *Option {
	for i := range options {
		o := &options[i]
		asked := func(arg string) bool { return slices.Contains(o.Names, arg) }
		if strings.HasPrefix(o.Name(), "help_") && slices.ContainsFunc(args, asked) {
			return o
		}
	}
	return nil
}

// isValue tells values from options.
func isValue(arg string) bool {
	o, _, _, err := lookUp(arg)
	return o == nil && err == nil && (!strings.HasPrefix(arg, "-") || arg == "-" || negative.MatchString(arg) || strings.Contains(arg, " "))
}

var negative = regexp.MustCompile(`^-(\d+|\d*\.\d+)$`)

// lookUp finds the row of an argument, nil if it is none.
func lookUp(arg string) (o *Option, value string, hasValue bool, err error) {
	if len(arg) < 2 || arg[0] != '-' || arg == "--" {
		return nil, "", false, nil
	}
	name, value, hasValue := strings.Cut(arg, "=")
	for _, exact := range []string{arg, name} {
		if found := named(func(one string) bool { return one == exact }); len(found) > 0 {
			return found[0], value, hasValue, nil
		}
	}
	prefix := name
	if arg[1] != '-' {
		prefix = arg
	}
	matches := named(func(one string) bool { return strings.HasPrefix(one, prefix) })
	if short := named(func(one string) bool { return one == arg[:2] }); len(short) > 0 && arg[1] != '-' { // -iFILE
		matches, value, hasValue = append(matches, short...), arg[2:], true
	}
	switch len(matches) {
	case 0:
		return nil, "", false, nil
	case 1:
		return matches[0], value, hasValue, nil
	}
	var names []string
	for _, m := range matches {
		names = append(names, m.Names[0])
	}
	return nil, "", false, fmt.Errorf("ambiguous option: %s could match %s", arg, strings.Join(names, ", "))
}

func named(is func(name string) bool) (matches []*Option) {
	for i := range options {
		if slices.ContainsFunc(options[i].Names, is) {
			matches = append(matches, &options[i])
		}
	}
	return matches
}

func (c *Command) set(o *Option, value string, hasValue bool) error {
	switch {
	case o.Kind == Switch && hasValue:
		return fmt.Errorf("argument %s: it takes no value, got %q", o, value)
	case o.Kind == Maybe && !hasValue:
		value = o.Default
	case o.Kind != Switch && !hasValue:
		return fmt.Errorf("argument %s: expected one argument", o)
	}
	if err := o.check(value); err != nil {
		return fmt.Errorf("argument %s: %w", o, err)
	}
	c.values[o.Name()] = value
	return nil
}

func (o *Option) check(value string) error {
	switch {
	case o.Kind == Integer:
		n, err := wholeNumber(value)
		if err != nil {
			return fmt.Errorf("invalid int value: %q", value)
		}
		value = strconv.Itoa(n)
	case o.Kind == Number:
		if _, err := strconv.ParseFloat(plainNumber(value), 64); err != nil {
			return fmt.Errorf("invalid float value: %q", value)
		}
	}
	if o.Choices != nil && !slices.Contains(o.Choices, value) {
		return fmt.Errorf("invalid choice: %q (choose from %s)", value, strings.Join(o.Choices, ", "))
	}
	return nil
}

func wholeNumber(text string) (int, error) { return strconv.Atoi(plainNumber(text)) }

var separators = regexp.MustCompile(`(\d)_(\d)`)

// plainNumber is a number as Go writes it: Python has spaces around it, and
// underscores between digits.
func plainNumber(text string) string {
	text = strings.TrimSpace(text)
	return separators.ReplaceAllString(separators.ReplaceAllString(text, "$1$2"), "$1$2")
}
