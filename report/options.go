package report

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Options are the keys of a layer's description, in the order of the file.
type Options []Option

// Option is one key. Values are nil, bool, string, [json.Number], []any or
// Options; NaN and infinities, which JSON has not, are strings.
type Option struct {
	Key   string
	Value any
}

// Get returns the value of a key; ok reports whether the key is there.
func (o Options) Get(key string) (value any, ok bool) {
	for _, one := range o {
		if one.Key == key {
			return one.Value, true
		}
	}
	return nil, false
}

// MarshalJSON writes an object with its keys in order.
func (o Options) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, one := range o {
		if i > 0 {
			b = append(b, ',')
		}
		key, err := json.Marshal(one.Key)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(one.Value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", one.Key, err)
		}
		b = append(append(append(b, key...), ':'), value...)
	}
	return append(b, '}'), nil
}

// UnmarshalJSON reads an object, with its keys in order.
func (o *Options) UnmarshalJSON(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	v, err := readValue(d)
	if err != nil {
		return err
	}
	object, ok := v.(Options)
	if !ok && v != nil {
		return fmt.Errorf("options are an object, not %s", text)
	}
	*o = object
	return nil
}

func readValue(d *json.Decoder) (any, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch token {
	case json.Delim('{'):
		return readObject(d)
	case json.Delim('['):
		return readList(d)
	}
	return token, nil
}

func readObject(d *json.Decoder) (any, error) {
	o := Options{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		value, err := readValue(d)
		if err != nil {
			return nil, err
		}
		o = append(o, Option{key.(string), value})
	}
	_, err := d.Token()
	return o, err
}

func readList(d *json.Decoder) (any, error) {
	list := []any{}
	for d.More() {
		value, err := readValue(d)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	_, err := d.Token()
	return list, err
}
