# SPDX-License-Identifier: Apache-2.0
# The least a driver in Ruby can do, for bench/one: read lines, decode, run the action's script with
# the message as input, answer; 15 threads. With "rexml" as argument it reads the XML as well, once.
# The stock driver does more: several passes over the XML, roll-back, log lines, network drivers.
require 'open3'
require 'rexml/document' if ARGV[1] == 'rexml'

$stdout.sync = true
queue = Queue.new
lock = Mutex.new
script = ARGV[0]
Array.new(15) do
  Thread.new do
    while (line = queue.pop)
      word, id, payload = line.split(' ')
      xml = payload.unpack1('m')
      REXML::Document.new(xml).root.elements['HOST'].text if defined?(REXML::Document)
      out, _err, status = Open3.capture3("#{script} one-#{id} node1 #{id} node1", stdin_data: payload)
      out = '-' if out.strip.empty?
      lock.synchronize do
        $stdout.write("#{word} #{status.success? ? 'SUCCESS' : 'FAILURE'} #{id} #{out.strip}\n")
      end
    end
  end
end
$stdin.each_line do |line|
  case line
  when /\AINIT/ then lock.synchronize { $stdout.write("INIT SUCCESS\n") }
  when /\AFINALIZE/ then exit!(0)
  else queue << line
  end
end
