# frozen_string_literal: true

# Run the Vagrantfile without Vagrant and print as JSON what it asks for:
#   ruby record.rb VAGRANTFILE PROVIDER
# {"requires": version, "no_parallel": text, "shared": CALLS, "machines": [{"name", "options", "calls": CALLS}]}
# CALLS is a list of [path, positional arguments, keyword arguments]: `node.vm.hostname = "a"` is [".vm.hostname=", ["a"], {}].
# Blocks for other providers than PROVIDER do not run, like with Vagrant.

require "json"

# Notes every call, and answers property reads with itself one level deeper.
class Recorder < BasicObject
  def initialize(provider, calls, path = "")
    @provider = provider
    @calls = calls
    @path = path
  end

  def method_missing(name, *positional, **keywords, &block)
    path = "#{@path}.#{name}"
    inner = ::Recorder.new(@provider, @calls, path)
    case name
    when :define then return ::MACHINES << ::Machines.run(@provider, positional.first, keywords, block)
    when :provider then return unless positional.first == @provider
    end
    return inner if positional.empty? && keywords.empty? && block.nil?

    @calls << [path, positional, keywords]
    block&.call(inner, ::Recorder.new(@provider, @calls, ".override"))
  end

  def respond_to_missing?(*)
    true
  end
end

# One `config.vm.define`.
module Machines
  def self.run(provider, name, options, block)
    calls = []
    block.call(Recorder.new(provider, calls))
    { name: name, options: options, calls: calls }
  end
end

# What the file sees of Vagrant.
module Vagrant
  class << self
    attr_reader :requirement

    def require_version(requirement)
      @requirement = requirement
    end

    def configure(version)
      raise "configuration version #{version.inspect}, wanted \"2\"" unless version == "2"

      yield Recorder.new(PROVIDER, SHARED)
    end
  end
end

MACHINES = []
SHARED = []
PROVIDER = ARGV.fetch(1).to_sym

load ARGV.fetch(0)
puts JSON.generate(
  requires: Vagrant.requirement, no_parallel: ENV["VAGRANT_NO_PARALLEL"], shared: SHARED, machines: MACHINES
)
