package codec

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/storage"
)

// ParseMenu reads a menu: entries with commas between them, each a dtype, with settings
// after colons, or keep: uint4:group-size=32:hadamard,int8,keep.
func ParseMenu(text string) (menu []storage.Candidate, err error) {
	for entry := range strings.SplitSeq(text, ",") {
		c, err := parseCandidate(strings.TrimSpace(entry))
		if err != nil {
			return nil, err
		}
		menu = append(menu, c)
	}
	return menu, nil
}

func parseCandidate(text string) (c storage.Candidate, err error) {
	c.Name = text
	if c.Keep = text == "keep"; c.Keep {
		return c, nil
	}
	name, rest, more := strings.Cut(text, ":")
	if name == "sdnq" && more { // a prefix of dtypes
		name, rest, more = strings.Cut(rest, ":")
		name = "sdnq:" + name
	}
	if _, err := Resolve(name, false); err != nil { // every layout's names
		return c, fmt.Errorf("%s: %w", text, err)
	}
	c.Layer.Dtype = name
	for more {
		var setting string
		setting, rest, more = strings.Cut(rest, ":")
		flag, value, hasValue := strings.Cut(setting, "=")
		if flag == "dtype" {
			return c, fmt.Errorf("%s: two dtypes, %s and %s", text, name, value)
		}
		if err := Parse(&c.Layer, flag, value, hasValue); err != nil {
			return c, fmt.Errorf("%s: %w", text, err)
		}
	}
	return c, nil
}

// Words are settings as a rule has them, with that between one and the next:
// uint4,group-size=32,hadamard.
func Words(g storage.Settings, between string) string {
	var said []string
	for i := range fields {
		f := &fields[i]
		switch v := f.said(&g); {
		case v == nil:
		case f.Flag == "dtype":
			said = append(said, v.(string))
		case v == true:
			said = append(said, f.Flag)
		default:
			said = append(said, fmt.Sprintf("%s=%v", f.Flag, v))
		}
	}
	return strings.Join(said, between)
}

// Over returns settings with others in their place where those say something.
func Over(under, over storage.Settings) storage.Settings {
	for i := range fields {
		fields[i].copy(&under, &over)
	}
	return under
}

// For returns what of given settings means something to a format, and all that own says.
func (f *Format) For(given, own storage.Settings) storage.Settings {
	var kept storage.Settings
	for i := range fields {
		one := &fields[i]
		useless := !f.takes(one) || one.Flag == "scale" && f.Scales[given.Scale] == ""
		if one.Said(&own) || !useless {
			one.copy(&kept, &given)
		}
	}
	return kept
}

// Against returns settings for layers of a format with which they are stored as by own
// settings alone, though others are given for all layers: what the others say and these
// do not is taken back. The error is for what cannot be.
func (f *Format) Against(others, own storage.Settings) (storage.Settings, error) {
	s := own
	for i := range fields {
		one := &fields[i]
		if !one.Said(&others) || one.Said(&own) || !f.takes(one) {
			continue
		}
		var err error
		switch one.Flag {
		case "scale-dtype", "zero-point-dtype":
			one.put(&s, "none")
		case "scale":
			err = f.sayScale(&s)
		case "svd-rank":
			rank := 0
			if f == svdquantW4A4 { // which has one always
				rank = svdRank
			}
			one.put(&s, rank)
		default:
			err = one.putDefault(&s)
		}
		if err != nil {
			return s, fmt.Errorf("%s %w", one.Flag, err)
		}
	}
	return s, nil
}

// sayScale says the scale that a format has.
func (f *Format) sayScale(s *storage.Settings) error {
	for _, scale := range slices.Sorted(maps.Keys(f.Scales)) {
		if f.Scales[scale] == f.Name {
			s.Scale = scale
			return nil
		}
	}
	if f.Scales == nil {
		return nil // there is no choice, and what others say is dropped
	}
	return errUnsayable
}
