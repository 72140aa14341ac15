// Package policy is the commands that apply, list and delete policies and show their history, over the admin API.
package policy
