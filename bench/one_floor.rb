# SPDX-License-Identifier: Apache-2.0
# The least a driver in Ruby must do, for bench/one. "bare": read lines, decode, start the action's script, answer; 15
# threads. "stock": what the stock driver is known to do beside that for an action of one local script: it reads
# the XML, and starts the script by "sh -c" in a process group of its own. Source: fact sheet, 4.3 (a). The
# stock driver does more: values by XPath, roll-back, log lines, network drivers, a queue per host.
require 'open3'
stock = ARGV[1] == 'stock'
require 'rexml/document' if stock

$stdout.sync = true
queue = Queue.new
lock = Mutex.new
script = ARGV[0]
Array.new(15) do
  Thread.new do
    while (line = queue.pop)
      word, id, payload = line.split(' ')
      xml = payload.unpack1('m')
      host = stock ? REXML::Document.new(xml).root.elements['HOST'].text : 'node1'
      words = [script, "one-#{id}", host, id, host]
      words = ['sh', '-c', words.join(' ')] if stock
      out, _err, status = Open3.capture3(*words, stdin_data: payload, pgroup: true)
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
