-- SPDX-License-Identifier: Apache-2.0
-- Tables, indices, joins, sorting and text, in memory. The table 'size' says how much of it; no random().
create table customers(id integer primary key, name text, town text);
create table orders(id integer primary key, customer integer, day integer, note text);
create table lines(of integer, article text, price real, number integer);
with recursive c(x) as (select 1 union all select x + 1 from c where x < (select rows / 10 from size))
  insert into customers select x, printf('customer %d', x * 7919 % 10007), printf('town %d', x % 97) from c;
with recursive c(x) as (select 1 union all select x + 1 from c where x < (select rows from size))
  insert into orders select x, x * 31 % (select rows / 10 from size) + 1, x * 13 % 365, hex(x * 2654435761) from c;
insert into lines select id, printf('article %d', id * 17 % 911), id % 1000 / 7.0, id % 9 + 1 from orders;
insert into lines select id, upper(note) || '-' || day, id % 77, 1 from orders where id % 3 = 0;
create index of_customer on orders(customer);
create index of_order on lines(of);
begin;
update orders set note = replace(note, 'A', 'alpha') where day < 120;
delete from lines where number = 4;
commit;
select town, count(*), round(sum(price * number), 2) from customers join orders on customer = customers.id
  join lines on of = orders.id group by town order by 3 desc limit 5;
select article, group_concat(of) is not null, max(price) from lines group by article order by article limit 5;
select name, rank() over (partition by town order by id) from customers order by town, name limit 5;
select count(*) from (select distinct substr(note, 1, 6) || day from orders);
select json_group_array(json_object('id', id, 'note', note)) is not null, sum(length(json_array(id, note, day)))
  from orders where day > 300;
