package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// parseYAML returns the only document of a file, nil if it is empty, or an error and
// the line that it is about.
func parseYAML(text []byte) (root *yaml.Node, line int, err error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var document, second yaml.Node
	if err := d.Decode(&document); err == io.EOF {
		return nil, 0, nil
	} else if err != nil {
		line, err = lineOf(err)
		return nil, line, err
	}
	if err := d.Decode(&second); err != io.EOF {
		return nil, second.Line, errors.New("want one document")
	}
	root = document.Content[0]
	if root.ShortTag() == "!!null" {
		return nil, 0, nil
	}
	return root, 0, nil
}

// lineOf separates the line number from one of yaml's messages: "yaml: line 3: …".
func lineOf(err error) (int, error) {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		number, why, _ := strings.Cut(rest, ": ")
		if line, err := strconv.Atoi(number); err == nil {
			return line, errors.New(why)
		}
	}
	return 0, errors.New(text)
}

// parseJSON is parseYAML for JSON. YAML parsers refuse some JSON, and accept some text
// that is not JSON.
func parseJSON(text []byte) (root *yaml.Node, line int, err error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	p := &jsonParser{text: text, decoder: json.NewDecoder(bytes.NewReader(text))}
	p.decoder.UseNumber()
	if root, err = p.value(); err == nil {
		if _, err = p.decoder.Token(); err == io.EOF {
			return root, 0, nil
		}
		err = errors.New("want one JSON value")
	}
	return nil, p.line(), err
}

// jsonParser turns JSON into YAML nodes with line numbers.
type jsonParser struct {
	text    []byte
	decoder *json.Decoder
	depth   int
}

func (p *jsonParser) line() int {
	return 1 + bytes.Count(p.text[:p.decoder.InputOffset()], []byte("\n"))
}

// mostDepth bounds nesting: more than recipes need, less than would exhaust the stack.
const mostDepth = 20

func (p *jsonParser) value() (*yaml.Node, error) {
	token, err := p.decoder.Token()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: p.line()}
	switch v := token.(type) {
	case json.Delim:
		return n, p.fill(n, v)
	case string:
		n.Tag, n.Value = "!!str", v
	case bool:
		n.Tag, n.Value = "!!bool", fmt.Sprint(v)
	case json.Number:
		n.Value = v.String()
		if n.Tag = "!!float"; !strings.ContainsAny(n.Value, ".eE") {
			n.Tag = "!!int"
		}
	default:
		n.Tag, n.Value = "!!null", "null"
	}
	return n, nil
}

// fill reads the content of an object or a list after its opening bracket.
func (p *jsonParser) fill(n *yaml.Node, open json.Delim) error {
	n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
	if open == '{' {
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
	}
	if p.depth++; p.depth > mostDepth {
		return errors.New("too deep")
	}
	for p.decoder.More() {
		v, err := p.value()
		if err != nil {
			return err
		}
		n.Content = append(n.Content, v)
	}
	p.depth--
	_, err := p.decoder.Token()
	return err
}
