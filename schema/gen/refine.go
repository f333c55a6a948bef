package main

import (
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/gpuaas/node-agent/schema/names"
	"github.com/gpuaas/node-agent/schema/task"
	v1 "github.com/gpuaas/node-agent/schema/v1"
	"github.com/invopop/jsonschema"
	"gopkg.in/yaml.v3"
)

// mapped gives schemas to types whose YAML is not what their Go kind shows.
func mapped(t reflect.Type) *jsonschema.Schema {
	switch t {
	case reflect.TypeFor[v1.Value]():
		return scalar()
	case reflect.TypeFor[task.Duration]():
		return &jsonschema.Schema{Type: "string", Pattern: `^([0-9]+d)?([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))*$`, MinLength: number(1)}
	case reflect.TypeFor[task.Env]():
		return &jsonschema.Schema{Type: "object", PropertyNames: named("envName"), AdditionalProperties: scalar(), MaxProperties: number(task.MaxEnv)}
	case reflect.TypeFor[yaml.Node](), reflect.TypeFor[task.Spec]():
		return &jsonschema.Schema{Type: "object"}
	case reflect.TypeFor[task.State]():
		return enum([]task.State{task.Running, task.Stopped})
	case reflect.TypeFor[task.Action]():
		return enum([]task.Action{task.Restart, task.Reload})
	case reflect.TypeFor[v1.Reason]():
		return enum(v1.Reasons())
	case reflect.TypeFor[v1.ConditionType]():
		return enum(v1.ConditionTypes())
	case reflect.TypeFor[v1.ConditionStatus]():
		return enum(v1.ConditionStatuses())
	case reflect.TypeFor[v1.ElementState]():
		return enum(v1.ElementStates())
	}
	return nil
}

// scalar is a string, number or boolean.
func scalar() *jsonschema.Schema {
	return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "string"}, {Type: "number"}, {Type: "boolean"}}}
}

func enum[T any](values []T) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "string"}
	for _, v := range values {
		s.Enum = append(s.Enum, v)
	}
	return s
}

func number(n uint64) *uint64 { return &n }

// named is a string of a grammar of package names.
func named(grammar string) *jsonschema.Schema {
	g, ok := names.Grammars()[grammar]
	if !ok {
		panic(fmt.Sprintf("no grammar %q", grammar))
	}
	return &jsonschema.Schema{Type: "string", Pattern: g.Pattern, MaxLength: number(uint64(g.Most))}
}

// grammars says which grammar the string in a field, or in a list's items, has.
func grammars() map[string]string {
	return map[string]string{
		"Fleet.name": "label", "Fleet.environment": "label", "Fleet.installRoot": "absolutePath",
		"Registry.host": "host", "Team.name": "team", "SignedBranch.branch": "branch",
		"PackagePin.name": "label", "PackagePin.ref": "repository", "PackagePin.digest": "digest", "PackagePin.platforms": "platform",
		"Profile.name": "label", "Profile.packages": "label",
		"Node.id": "nodeID", "Node.team": "team", "Node.packages": "label",
		"TaskTemplate.id": "taskID", "Task.id": "taskID",
		"NodeManifest.node": "nodeID", "ManifestSource.commit": "commit",
		"ManifestPackage.name": "label", "ManifestPackage.ref": "repository", "ManifestPackage.digest": "digest",
		"NodeStatus.node": "nodeID", "ElementStatus.digest": "digest",
		"ArtifactFetch.name": "label", "ArtifactFetch.ref": "repository", "ArtifactFetch.digest": "digest",
		"WriteConfigFile.path": "absolutePath", "WriteConfigFile.mode": "mode", "WriteConfigFile.owner": "owner", "WriteConfigFile.group": "owner",
		"WriteEnvFile.path": "absolutePath", "WriteEnvFile.mode": "mode", "WriteEnvFile.owner": "owner", "WriteEnvFile.group": "owner",
		"InstallServiceUnit.unit": "unit", "PackageFile.package": "label", "PackageFile.file": "relativePath",
		"ServiceControl.unit": "unit", "HTTPCheck.url": "httpURL", "TCPCheck.address": "tcpAddress", "ManifestSource.repo": "repositoryURL",
	}
}

// refine adds to the schema of a struct what its Go type doesn't show.
func refine(name string, s *jsonschema.Schema) {
	if s.Properties == nil {
		if s.Type == "object" && name == "Values" {
			s.PropertyNames = named("valueName")
		}
		return
	}
	required := map[string]bool{}
	for _, field := range s.Required {
		required[field] = true
	}
	for pair := s.Properties.Oldest(); pair != nil; pair = pair.Next() {
		p := pair.Value
		if grammar, ok := grammars()[name+"."+pair.Key]; ok {
			target := p
			if p.Type == "array" {
				target = p.Items
			}
			g := named(grammar)
			target.Pattern, target.MaxLength = g.Pattern, g.MaxLength
		}
		if p.Type == "string" && p.Pattern == "" && p.Enum == nil && p.Const == nil && p.Format == "" {
			p.MinLength = number(1)
		}
		if required[pair.Key] && p.Type == "array" {
			p.MinItems = number(1)
		}
		if p.Type == "object" && (pair.Key == "labels" || pair.Key == "matchLabels") {
			p.PropertyNames, p.AdditionalProperties = named("labelKey"), named("labelValue")
		}
	}
	switch name {
	case "Team":
		bound(s, "threshold", "1", "100")
	case "NodeManifest":
		bound(s, "generation", "1", "")
	case "NodeStatus":
		setEnum(s, "phase", v1.Phases())
	case "InstallServiceUnit":
		s.OneOf = either("from", "content")
	case "ServiceControl":
		s.OneOf = either("state", "action")
	}
}

func bound(s *jsonschema.Schema, field, least, most string) {
	p, _ := s.Properties.Get(field)
	p.Minimum, p.Maximum = json.Number(least), json.Number(most)
}

func setEnum(s *jsonschema.Schema, field string, values []string) {
	p, _ := s.Properties.Get(field)
	p.Enum = enum(values).Enum
}

// either demands exactly one of the fields.
func either(fields ...string) []*jsonschema.Schema {
	var out []*jsonschema.Schema
	for _, f := range fields {
		out = append(out, &jsonschema.Schema{Required: []string{f}})
	}
	return out
}
